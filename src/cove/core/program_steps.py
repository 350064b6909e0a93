"""The program of an asynchronous execution: started at most once, then watched until it has ended.

The store knows at every moment how far it has got, so that a server that is killed goes on where it was. Between
`starting` and `running` lies the one call whose answer may be lost. It is repeated then, with the execution's id: an
agent starts an id once, and lives as long as its sandbox.
"""

import asyncio
from pathlib import Path
from typing import Protocol

import structlog

from cove.core.clock import Clock
from cove.core.directory import LiveDirectory
from cove.core.principal import SYSTEM_ACTOR
from cove.core.program_ends import Ending, failed, of_process
from cove.core.storage import Store, UnitOfWork
from cove.keys.sealing import Sealer
from cove.models.async_executions import ExecutionStatus
from cove.models.errors import CoveError
from cove.models.processes import BackgroundProcess, ProcessStatus
from cove.models.sandboxes import SandboxStatus
from cove.models.stored import ExecutionEnd, ExecutionPart, StoredEvent, StoredExecution, StoredSandbox

KEPT_RECORDS = 10_000
KEPT_RESULT_BYTES = 256 * 1024 * 1024

_STARTS = 32
_POLLS = 512
_LONG_SECONDS = 30.0
_SHORT_SECONDS = 1.0
_PACE_SECONDS = 1.0
_MAX_QUEUED_SECONDS = 24 * 3600.0
_OVERDUE_SECONDS = 600.0
_BUSY = frozenset({"RESOURCE_LIMIT_EXCEEDED", "RATE_LIMIT_EXCEEDED", "CAPACITY_EXHAUSTED"})


class GuestPrograms(Protocol):
    """What is asked of the agent inside a sandbox. Its answers are not trusted: bounded, and checked for their shape.

    Both calls raise `CoveError`: AGENT_UNREACHABLE when it is open what became of the call, and the agent's own code
    when it refused. `owner` is the tenant whose sandbox it is.
    """

    async def start(self, socket_path: Path, program: bytes, *, owner: str) -> None:
        """Start a `BackgroundExecute`, given as JSON. Repeating it with the same execution id starts nothing."""
        ...

    async def look(
        self, socket_path: Path, execution_id: str, *, owner: str, wait_seconds: float
    ) -> BackgroundProcess | None:
        """How the program is, as soon as it has ended but after `wait_seconds` at the latest; None if unknown."""
        ...


class ProgramSteps:
    """Takes executions one step further at a time."""

    def __init__(
        self,
        store: Store,
        *,
        guests: GuestPrograms,
        directory: LiveDirectory,
        sealer: Sealer,
        clock: Clock,
        give_up_seconds: float,
    ) -> None:
        self._store = store
        self._guests = guests
        self._directory = directory
        self._sealer = sealer
        self._clock = clock
        self._give_up_seconds = give_up_seconds
        self._starts = asyncio.Semaphore(_STARTS)
        self._polls = asyncio.Semaphore(_POLLS)
        self._log = structlog.get_logger("cove.executions")

    async def step(self, row: StoredExecution) -> float:
        """One step of an execution that has not ended; seconds until the next one makes sense.

        Raises:
            CoveError: it could not be taken; another try may do better.
        """
        sandbox = await self._store.read(lambda work: work.sandboxes.get(row.sandbox_id))
        if sandbox is None or sandbox.status is SandboxStatus.DELETED:
            return await self._end(row, failed(f"The sandbox {_how_it_ended(sandbox)} before the program had ended."))
        if row.status is ExecutionStatus.INTERRUPTED:
            return await self._end(row, failed("The sandbox was stopped before the program had ended."))
        socket_path = self._directory.socket_of(row.sandbox_id)
        if sandbox.status is not SandboxStatus.RUNNING or socket_path is None:
            return self._pause(row)
        if row.status is ExecutionStatus.RUNNING:
            return await self._watch(row, socket_path)
        if self._clock() - row.created_at > _MAX_QUEUED_SECONDS:
            return await self._end(row, failed("The sandbox did not take the program within 24 hours."))
        if row.status is ExecutionStatus.QUEUED:
            await self._move(row, ExecutionStatus.QUEUED, ExecutionStatus.STARTING)
        return await self._start(row, socket_path)

    async def _start(self, row: StoredExecution, socket_path: Path) -> float:
        try:
            async with self._starts:
                await self._guests.start(socket_path, await self._program(row), owner=row.namespace)
        except CoveError as refusal:
            if refusal.code in ("AGENT_UNREACHABLE", "STORE_UNAVAILABLE"):
                raise
            if refusal.code in _BUSY:
                await self._move(row, ExecutionStatus.STARTING, ExecutionStatus.QUEUED)
                return self._pause(row)
            return await self._end(row, failed(f"The program was not started: {refusal.message}"))
        await self._move(row, ExecutionStatus.STARTING, ExecutionStatus.RUNNING)
        return 0.0

    async def _watch(self, row: StoredExecution, socket_path: Path) -> float:
        wait = _SHORT_SECONDS if self._polls.locked() else _LONG_SECONDS
        started = asyncio.get_running_loop().time()
        try:
            async with self._polls:
                process = await self._guests.look(socket_path, row.id, owner=row.namespace, wait_seconds=wait)
        except CoveError as failure:
            if failure.code != "AGENT_UNREACHABLE":
                return await self._end(row, failed(failure.message))
            if self._is_overdue(row):
                return await self._end(row, failed("The sandbox does not say any more what became of the program."))
            raise
        if process is None:
            return await self._end(row, failed("The sandbox does not know the program's result any more."))
        if process.status is not ProcessStatus.RUNNING:
            return await self._end(row, of_process(process))
        if wait >= _LONG_SECONDS and self._is_overdue(row):
            return await self._end(row, failed("The sandbox did not end the program at its timeout."))
        return max(0.0, started + _PACE_SECONDS - asyncio.get_running_loop().time())

    def _is_overdue(self, row: StoredExecution) -> bool:
        due = (row.started_at or row.created_at) + row.timeout_seconds
        return self._clock() > due + _OVERDUE_SECONDS

    async def _end(self, row: StoredExecution, ending: Ending) -> float:
        now = self._clock()
        body = ending.body(row, at=now)
        end = ExecutionEnd(
            status=body.status,
            at=now,
            exit_code=body.exit_code,
            result=self._sealer.seal(f"{row.id}/result", body.model_dump_json().encode()),
            deliver_until=now + self._give_up_seconds,
        )

        def work(unit: UnitOfWork) -> None:
            if unit.executions.finish(row.id, end) is not None:
                unit.events.add(_event(row, f"execution.{end.status}", now))
                unit.executions.trim(row.namespace, records=KEPT_RECORDS, result_bytes=KEPT_RESULT_BYTES)

        await self._store.write(work)
        self._log.info("execution_ended", execution_id=row.id, sandbox_id=row.sandbox_id, status=end.status.value)
        return 0.0

    async def _move(
        self, row: StoredExecution, source: ExecutionStatus, target: ExecutionStatus
    ) -> StoredExecution | None:
        now = self._clock()

        def work(unit: UnitOfWork) -> StoredExecution | None:
            moved = unit.executions.move(row.id, source=source, target=target, at=now)
            if moved is not None and target is ExecutionStatus.RUNNING:
                unit.events.add(_event(row, "execution.started", now))
            return moved

        return await self._store.write(work)

    async def _program(self, row: StoredExecution) -> bytes:
        sealed = await self._store.read(lambda work: work.executions.part(row.id, ExecutionPart.PROGRAM))
        return self._sealer.open(f"{row.id}/program", sealed or b"")

    def _pause(self, row: StoredExecution) -> float:
        """For a sandbox that takes nothing now: the longer it has been so, the longer the pause."""
        return min(30.0, max(0.2, (self._clock() - row.created_at) / 10))


def _how_it_ended(sandbox: StoredSandbox | None) -> str:
    if sandbox is None or not sandbox.end_reason:
        return "ended"
    return f"ended ({sandbox.end_limit or sandbox.end_reason})"


def _event(row: StoredExecution, action: str, at: float) -> StoredEvent:
    return StoredEvent(
        at=at,
        namespace=row.namespace,
        actor=SYSTEM_ACTOR,
        action=action,
        subject=row.id,
        details={"sandbox_id": row.sandbox_id},
    )
