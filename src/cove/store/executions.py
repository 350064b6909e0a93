"""Asynchronous executions in the database. What is sealed comes and goes as bytes."""

from typing import Any

from sqlalchemy import Connection, RowMapping, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate
from sqlalchemy.sql.elements import ColumnElement

from cove.models.async_executions import DeliveryState, ExecutionStatus
from cove.models.errors import error
from cove.models.scopes import EVERY_NAMESPACE
from cove.models.stored import ExecutionEnd, ExecutionPart, ExecutionQuery, StoredExecution
from cove.store.schema import ASYNC_EXECUTIONS, SANDBOXES

_COLUMNS = ASYNC_EXECUTIONS.c
_LIGHT = tuple(column for column in _COLUMNS if column.name not in frozenset(ExecutionPart))
_OPEN_STATES = (DeliveryState.WAITING.value, DeliveryState.PENDING.value)
_SETTLED_STATES = (DeliveryState.DELIVERED.value, DeliveryState.UNDELIVERABLE.value)
_UNENDED = tuple(
    status.value
    for status in (
        ExecutionStatus.QUEUED,
        ExecutionStatus.STARTING,
        ExecutionStatus.RUNNING,
        ExecutionStatus.INTERRUPTED,
    )
)
_OPEN = _COLUMNS.delivery.in_(_OPEN_STATES)
_SETTLED = _COLUMNS.delivery.in_(_SETTLED_STATES)
_GET = select(*_LIGHT).where(_COLUMNS.id == bindparam("execution_id"))
_TRIMMED_AT_ONCE = 200


class SqlExecutionRepository:
    """Implements the core's `ExecutionRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, execution: StoredExecution, *, program: bytes, callback: bytes) -> None:
        """Insert a row; CONFLICT when the id is taken."""
        values = {column.name: getattr(execution, column.name) for column in _LIGHT}
        values |= {"status": execution.status.value, "delivery": execution.delivery.value}
        try:
            self._connection.execute(
                insert(ASYNC_EXECUTIONS), {**values, "program": program, "callback": callback, "result": None}
            )
        except IntegrityError as failure:
            raise error("CONFLICT", f"An execution with the id {execution.id} exists already.") from failure

    def get(self, execution_id: str) -> StoredExecution | None:
        """The row."""
        row = self._connection.execute(_GET, {"execution_id": execution_id}).mappings().first()
        return None if row is None else _execution(row)

    def part(self, execution_id: str, part: ExecutionPart) -> bytes | None:
        """A sealed part, or None when it is not kept (any more)."""
        wanted = select(_COLUMNS[part.value]).where(_COLUMNS.id == execution_id)
        return self._connection.execute(wanted).scalar()

    def page(self, query: ExecutionQuery) -> tuple[StoredExecution, ...]:
        """Rows that match, newest first."""
        wanted = select(*_LIGHT)
        if query.namespace != EVERY_NAMESPACE:
            wanted = wanted.where(_COLUMNS.namespace == query.namespace)
        if query.client_lease is not None:
            leased = select(SANDBOXES.c.id).where(SANDBOXES.c.client_lease == query.client_lease)
            wanted = wanted.where(_COLUMNS.sandbox_id.in_(leased))
        if query.sandbox_id is not None:
            wanted = wanted.where(_COLUMNS.sandbox_id == query.sandbox_id)
        if query.before is not None:
            created, last = query.before
            older = or_(_COLUMNS.created_at < created, and_(_COLUMNS.created_at == created, _COLUMNS.id < last))
            wanted = wanted.where(older)
        wanted = wanted.order_by(_COLUMNS.created_at.desc(), _COLUMNS.id.desc()).limit(query.limit)
        return tuple(_execution(row) for row in self._connection.execute(wanted).mappings())

    def open_ids(self) -> tuple[str, ...]:
        """Every open execution, of all namespaces, oldest first."""
        wanted = select(_COLUMNS.id).where(_OPEN).order_by(_COLUMNS.created_at, _COLUMNS.id)
        return tuple(self._connection.execute(wanted).scalars())

    def count_open(self, *, namespace: str | None = None) -> int:
        """How many are open."""
        wanted = select(func.count()).select_from(ASYNC_EXECUTIONS).where(_OPEN)
        if namespace is not None:
            wanted = wanted.where(_COLUMNS.namespace == namespace)
        return self._connection.execute(wanted).scalar_one()

    def move(
        self, execution_id: str, *, source: ExecutionStatus, target: ExecutionStatus, at: float
    ) -> StoredExecution | None:
        """Move to `target` if the row is in `source`; the row after the change, or None."""
        values: dict[str, Any] = {"status": target.value}
        if target is ExecutionStatus.STARTING:
            values["started_at"] = at
        elif target is ExecutionStatus.QUEUED:
            values["started_at"] = None
        elif target is ExecutionStatus.RUNNING:
            values["program"] = None
        return self._change(execution_id, _COLUMNS.status == source.value, values)

    def interrupt(self, sandbox_id: str) -> None:
        """Mark those of a sandbox that have begun, or may have, and have not ended: their program is gone."""
        begun = _COLUMNS.status.in_((ExecutionStatus.STARTING.value, ExecutionStatus.RUNNING.value))
        change = update(ASYNC_EXECUTIONS).where(_COLUMNS.sandbox_id == sandbox_id, begun)
        self._connection.execute(change.values(status=ExecutionStatus.INTERRUPTED.value, program=None))

    def finish(self, execution_id: str, end: ExecutionEnd) -> StoredExecution | None:
        """Note how it ended, if it has not: its webhook is due now. The row after the change, or None."""
        values = {
            "status": end.status.value,
            "delivery": DeliveryState.PENDING.value,
            "ended_at": end.at,
            "exit_code": end.exit_code,
            "program": None,
            "result": end.result,
            "result_bytes": len(end.result),
            "next_attempt_at": end.at,
            "deliver_until": end.deliver_until,
        }
        return self._change(execution_id, _COLUMNS.status.in_(_UNENDED), values)

    def note_attempt(
        self, execution_id: str, *, delivery: DeliveryState, at: float, failure: str | None, next_at: float | None
    ) -> StoredExecution | None:
        """Note one attempt of a pending webhook; the row after the change, or None when it is not pending."""
        values: dict[str, Any] = {
            "delivery": delivery.value,
            "attempts": _COLUMNS.attempts + 1,
            "next_attempt_at": next_at,
        }
        if delivery is DeliveryState.DELIVERED:
            values["delivered_at"] = at
        if failure is not None:
            values["last_error"] = failure
        return self._change(execution_id, _COLUMNS.delivery == DeliveryState.PENDING.value, values)

    def deliver_again(self, execution_id: str, *, at: float, until: float) -> StoredExecution | None:
        """Make the webhook due, if the program has ended and its result is kept; the row after, or None."""
        values = {"delivery": DeliveryState.PENDING.value, "next_attempt_at": at, "deliver_until": until}
        return self._change(execution_id, _COLUMNS.result.is_not(None), values)

    def trim(self, namespace: str, *, records: int, result_bytes: int) -> None:
        """Drop the oldest records, and results, that are not open until the namespace's are within these bounds."""
        mine = _COLUMNS.namespace == namespace
        count, size = self._connection.execute(
            select(func.count(), func.coalesce(func.sum(_COLUMNS.result_bytes), 0)).where(mine)
        ).one()
        if count > records:
            surplus = min(count - records, _TRIMMED_AT_ONCE)
            oldest = select(_COLUMNS.id).where(mine, _SETTLED).order_by(_COLUMNS.ended_at).limit(surplus)
            self._connection.execute(delete(ASYNC_EXECUTIONS).where(_COLUMNS.id.in_(oldest)))
        if size > result_bytes:
            self._drop_results(mine, int(size) - result_bytes)

    def prune(self, *, ended_before: float) -> int:
        """Drop those that ended earlier and are not open; how many."""
        old = and_(_SETTLED, _COLUMNS.ended_at < ended_before)
        return self._connection.execute(delete(ASYNC_EXECUTIONS).where(old)).rowcount

    def _drop_results(self, mine: ColumnElement[bool], surplus: int) -> None:
        """Free at least `surplus` bytes, or all that may be dropped at once."""
        wanted = select(_COLUMNS.id, _COLUMNS.result_bytes).where(mine, _SETTLED, _COLUMNS.result_bytes > 0)
        doomed: list[str] = []
        for execution_id, size in self._connection.execute(wanted.order_by(_COLUMNS.ended_at).limit(_TRIMMED_AT_ONCE)):
            if surplus <= 0:
                break
            doomed.append(execution_id)
            surplus -= size
        change = update(ASYNC_EXECUTIONS).where(_COLUMNS.id.in_(doomed))
        self._connection.execute(change.values(result=None, result_bytes=0))

    def _change(
        self, execution_id: str, condition: ColumnElement[bool], values: dict[str, Any]
    ) -> StoredExecution | None:
        change: ReturningUpdate[Any] = (
            update(ASYNC_EXECUTIONS).where(_COLUMNS.id == execution_id, condition).values(values).returning(*_LIGHT)
        )
        row = self._connection.execute(change).mappings().first()
        return None if row is None else _execution(row)


def _execution(row: RowMapping) -> StoredExecution:
    values = dict(row)
    status, delivery = ExecutionStatus(values.pop("status")), DeliveryState(values.pop("delivery"))
    return StoredExecution(status=status, delivery=delivery, **values)
