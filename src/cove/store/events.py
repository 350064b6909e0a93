"""The append-only record of who did what, in the database."""

from sqlalchemy import Connection, delete, insert, select

from cove.models.stored import StoredEvent
from cove.store.schema import EVENTS

_INSERT = insert(EVENTS)


class SqlEventRepository:
    """Implements the core's `EventRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, event: StoredEvent) -> None:
        """Append one event."""
        values = {
            "at": event.at,
            "namespace": event.namespace,
            "actor": event.actor,
            "action": event.action,
            "subject": event.subject,
            "details": event.details,
        }
        self._connection.execute(_INSERT.inline(), values)

    def recent(self, *, namespace: str, limit: int = 100) -> tuple[StoredEvent, ...]:
        """The newest events of a namespace, newest first."""
        wanted = select(EVENTS).where(EVENTS.c.namespace == namespace).order_by(EVENTS.c.id.desc()).limit(limit)
        return tuple(
            StoredEvent(
                at=row["at"],
                namespace=row["namespace"],
                actor=row["actor"],
                action=row["action"],
                subject=row["subject"],
                details=row["details"],
            )
            for row in self._connection.execute(wanted).mappings()
        )

    def prune(self, *, before: float) -> int:
        """Drop events that are older; how many."""
        return self._connection.execute(delete(EVENTS).where(EVENTS.c.at < before)).rowcount
