"""What a namespace used, from its events and its sandboxes."""

from sqlalchemy import Connection, and_, case, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from cove.models.stored import StoredUsage
from cove.store.schema import EVENTS, SANDBOXES

_HOUR = 3600.0
_GB = 1024.0


class SqlUsageRepository:
    """Implements the core's `UsageRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def count_events(self, namespace: str, action: str, *, start: float, end: float) -> int:
        """How many events of one kind there were in a span of time."""
        columns = EVENTS.c
        span = and_(columns.at >= start, columns.at < end)
        wanted = select(func.count()).where(columns.namespace == namespace, columns.action == action, span)
        return self._connection.execute(wanted).scalar_one()

    def between(self, namespace: str, *, start: float, end: float) -> StoredUsage:
        """What the namespace's sandboxes used in a span of time, as far as their rows are kept."""
        columns = SANDBOXES.c
        begun = case((columns.created_at < start, start), else_=columns.created_at)
        over = case((or_(columns.ended_at.is_(None), columns.ended_at > end), end), else_=columns.ended_at)
        hours = (over - begun) / _HOUR

        def total(amount: ColumnElement[float]) -> ColumnElement[float]:
            return func.coalesce(func.sum(hours * amount), 0.0)

        there = and_(columns.created_at < end, or_(columns.ended_at.is_(None), columns.ended_at > start))
        wanted = select(total(columns.vcpu), total(columns.memory_mb / _GB), total(columns.disk_mb / _GB))
        row = self._connection.execute(wanted.where(columns.namespace == namespace, there)).one()
        return StoredUsage(*(float(value) for value in row))
