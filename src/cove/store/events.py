"""The append-only record of who did what, in the database."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from cove.models.identifiers import is_sandbox_id
from cove.models.scopes import EVERY_NAMESPACE
from cove.models.stored import EventQuery, EventSlice, StoredEvent
from cove.store.schema import EVENT_RETENTION, EVENTS

LOOKED_THROUGH = 20_000
"""Events that one page looks at, at most."""

_SHUFFLED_SECONDS = 3600.0
"""Ids and times grow together, but an entry may be written this much later than what it tells of happened."""

_MAX_DETAILS = 20
_MAX_TEXT = 300
_WIDTHS = {"namespace": 64, "actor": 64, "action": 64, "subject": 200, "outcome": 64, "request_id": 128, "address": 64}

_INSERT = insert(EVENTS)


class SqlEventRepository:
    """Implements the core's `EventRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, event: StoredEvent) -> None:
        """Append one event."""
        self._connection.execute(_INSERT.inline(), _values(event))

    def extend(self, events: Sequence[StoredEvent]) -> None:
        """Append events."""
        if events:
            self._connection.execute(_INSERT.inline(), [_values(event) for event in events])

    def recent(self, *, namespace: str, limit: int = 100) -> tuple[StoredEvent, ...]:
        """The newest events of a namespace, newest first."""
        return self._read(select(EVENTS).where(EVENTS.c.namespace == namespace).order_by(EVENTS.c.id.desc()), limit)

    def page(self, query: EventQuery) -> EventSlice:
        """Events that match, newest first; see `LOOKED_THROUGH`."""
        there = _whose(query)
        seen = select(EVENTS.c.id, EVENTS.c.at).where(*there).order_by(EVENTS.c.id.desc())
        last = self._connection.execute(seen.offset(LOOKED_THROUGH - 1).limit(1)).first()
        if last is not None:
            there = [*there, EVENTS.c.id >= last.id]
        wanted = select(EVENTS).where(*there, *_filters(query)).order_by(EVENTS.c.id.desc())
        found = self._read(wanted, query.limit + 1)
        if len(found) > query.limit:
            return EventSlice(found[: query.limit], found[query.limit - 1].id)
        too_old = last is not None and query.since is not None and last.at < query.since - _SHUFFLED_SECONDS
        return EventSlice(found, None if last is None or too_old else last.id)

    def after(self, event_id: int, *, limit: int) -> tuple[StoredEvent, ...]:
        """The oldest events with a larger id, oldest first."""
        return self._read(select(EVENTS).where(EVENTS.c.id > event_id).order_by(EVENTS.c.id), limit)

    def prune(self, *, before: float) -> int:
        """Drop events that are older; how many. Triggers refuse every other deletion (migration 0006).

        The newest is kept, so that no id is given out twice.
        """
        self._connection.execute(update(EVENT_RETENTION).values(older_than=before))
        newest = select(func.max(EVENTS.c.id)).scalar_subquery()
        dropped = self._connection.execute(delete(EVENTS).where(EVENTS.c.at < before, EVENTS.c.id < newest)).rowcount
        self._connection.execute(update(EVENT_RETENTION).values(older_than=None))
        return dropped

    def _read(self, wanted: Select[Any], limit: int) -> tuple[StoredEvent, ...]:
        return tuple(_event(row) for row in self._connection.execute(wanted.limit(limit)).mappings())


def _whose(query: EventQuery) -> list[ColumnElement[bool]]:
    """What an index finds."""
    columns = EVENTS.c
    conditions: list[ColumnElement[bool]] = []
    if query.namespace != EVERY_NAMESPACE:
        conditions.append(columns.namespace == query.namespace)
    if query.sandbox_id is not None:
        conditions.append(columns.sandbox_id == query.sandbox_id)
    if query.before is not None:
        conditions.append(columns.id < query.before)
    return conditions


def _filters(query: EventQuery) -> list[ColumnElement[bool]]:
    columns = EVENTS.c
    conditions = [
        column == value
        for column, value in (
            (columns.actor, query.actor),
            (columns.subject, query.subject),
            (columns.outcome, query.outcome),
        )
        if value is not None
    ]
    if query.action is not None:
        conditions.append(columns.action.startswith(query.action, autoescape=True))
    if query.since is not None:
        conditions.append(columns.at >= query.since)
    if query.until is not None:
        conditions.append(columns.at < query.until)
    return conditions


def _values(event: StoredEvent) -> dict[str, Any]:
    texts = {name: _clean(getattr(event, name), width) for name, width in _WIDTHS.items()}
    details = {_clean(name, 64): _small(value) for name, value in list(event.details.items())[:_MAX_DETAILS]}
    return {"at": event.at, "details": details, "sandbox_id": _sandbox_of(event), **texts}


def _sandbox_of(event: StoredEvent) -> str | None:
    for candidate in (event.subject, event.details.get("sandbox_id")):
        if isinstance(candidate, str) and is_sandbox_id(candidate):
            return candidate
    return None


def _small(value: object, depth: int = 0) -> Any:
    """Something that JSON has, of a bounded size."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict) and depth < 2:
        fields = cast("dict[object, object]", value)
        return {_clean(str(name), 64): _small(one, depth + 1) for name, one in list(fields.items())[:_MAX_DETAILS]}
    if isinstance(value, list) and depth < 2:
        return [_small(one, depth + 1) for one in cast("list[object]", value)[:_MAX_DETAILS]]
    return _clean(str(cast(object, value)), _MAX_TEXT)


def _clean(text: str, width: int) -> str:
    """On one line, and nothing that a terminal or a reader of logs would obey."""
    text = text[:width]
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _event(row: RowMapping) -> StoredEvent:
    return StoredEvent(
        id=row["id"],
        at=row["at"],
        namespace=row["namespace"],
        actor=row["actor"],
        action=row["action"],
        subject=row["subject"],
        details=row["details"],
        outcome=row["outcome"],
        request_id=row["request_id"],
        address=row["address"],
    )
