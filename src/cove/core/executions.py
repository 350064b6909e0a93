"""Asynchronous executions, on behalf of whoever holds a sandbox's token (to start them) or a key (to look at them)."""

from dataclasses import dataclass

from cove.core.clock import Clock, rfc3339
from cove.core.execution_loop import ExecutionLoop
from cove.core.pages import MAX_PAGE, cursor_after, read_cursor
from cove.core.principal import NO_REQUEST, SYSTEM_ACTOR, Origin, Principal
from cove.core.program_ends import MAX_OUTPUT_BYTES
from cove.core.storage import Store, UnitOfWork
from cove.core.webhook_targets import WebhookTargets
from cove.core.webhooks import Callback
from cove.keys.sealing import Sealer
from cove.models.async_executions import (
    AsyncExecutionAccepted,
    DeliveryState,
    ExecuteAsync,
    ExecutionStatus,
)
from cove.models.errors import CoveError, error
from cove.models.execution import LANGUAGE_ALIASES, MAX_CODE_BYTES, Language
from cove.models.identifiers import is_execution_id, is_sandbox_id, new_execution_id
from cove.models.processes import BackgroundExecute
from cove.models.sandboxes import SandboxStatus
from cove.models.scopes import EVERY_NAMESPACE
from cove.models.stored import ExecutionPart, ExecutionQuery, StoredEvent, StoredExecution

MAX_OPEN_OF_NAMESPACE = 1000
MAX_OPEN = 10_000


@dataclass(frozen=True, slots=True)
class ShownExecution:
    """An execution and where its result goes; the URL is empty when it cannot be read with this server's key."""

    row: StoredExecution
    callback_url: str


@dataclass(frozen=True, slots=True)
class ExecutionPage:
    """Some executions, newest first, and the cursor of the next page if there is one."""

    executions: tuple[ShownExecution, ...]
    next_cursor: str | None


class Executions:
    """Takes them on, shows them, has their webhooks delivered again."""

    def __init__(
        self,
        store: Store,
        *,
        loop: ExecutionLoop,
        targets: WebhookTargets,
        sealer: Sealer,
        clock: Clock,
        give_up_seconds: float,
    ) -> None:
        self._store = store
        self._loop = loop
        self._targets = targets
        self._sealer = sealer
        self._clock = clock
        self._give_up_seconds = give_up_seconds

    async def submit(
        self, sandbox_id: str, request: ExecuteAsync, *, actor: str = SYSTEM_ACTOR, origin: Origin = NO_REQUEST
    ) -> AsyncExecutionAccepted:
        """Write it down and begin; it survives whatever happens to this server afterwards.

        Args:
            actor: whom the sandbox's token was made for.

        Raises:
            CoveError: SANDBOX_NOT_FOUND, UNSUPPORTED_LANGUAGE, REQUEST_TOO_LARGE, INVALID_REQUEST for a callback URL
                to which nothing is sent, RESOURCE_LIMIT_EXCEEDED, STORE_UNAVAILABLE.
        """
        language = _language(request.language)
        if len(request.code.encode()) > MAX_CODE_BYTES:
            raise error("REQUEST_TOO_LARGE", f"`code` is larger than {MAX_CODE_BYTES} bytes.", field="code")
        namespace = await self._store.read(lambda work: _namespace_of(work, sandbox_id))
        await self._targets.admit(request.callback_url, owner=namespace)
        now, execution_id = self._clock(), new_execution_id()
        row = StoredExecution(
            id=execution_id,
            namespace=namespace,
            sandbox_id=sandbox_id,
            status=ExecutionStatus.QUEUED,
            delivery=DeliveryState.WAITING,
            language=language.value,
            timeout_seconds=request.timeout,
            created_at=now,
        )
        program = self._sealer.seal(f"{row.id}/program", _program(row, request))
        callback = self._sealer.seal(f"{row.id}/callback", Callback.of(request).model_dump_json().encode())
        event = _event(row, "execution.queued", actor, row.created_at, origin)
        await self._store.write(lambda work: _add(work, row, program, callback, event))
        self._loop.follow(row.id)
        return AsyncExecutionAccepted(
            execution_id=execution_id,
            callback_url=request.callback_url,
            message="The program is queued; its result will be sent to the callback URL.",
            timestamp=rfc3339(now),
        )

    async def get(self, principal: Principal, execution_id: str) -> ShownExecution:
        """One execution.

        Raises:
            CoveError: EXECUTION_NOT_FOUND.
        """
        return await self._store.read(lambda work: self._shown(work, _find(work, principal, execution_id)))

    async def list(
        self, principal: Principal, *, limit: int, cursor: str | None = None, sandbox_id: str | None = None
    ) -> ExecutionPage:
        """One page, newest first.

        Raises:
            CoveError: INVALID_REQUEST for a cursor that no page gave out.
        """
        before = None if cursor is None else read_cursor(cursor, is_id=is_execution_id)
        shown = min(limit, MAX_PAGE)
        query = ExecutionQuery(
            namespace=principal.namespace,
            client_lease=principal.client_lease or None,
            sandbox_id=sandbox_id,
            before=before,
            limit=shown + 1,
        )
        if sandbox_id is not None and not is_sandbox_id(sandbox_id):
            return ExecutionPage((), None)

        def work(unit: UnitOfWork) -> ExecutionPage:
            rows = unit.executions.page(query)
            last = rows[shown - 1] if len(rows) > shown else None
            return ExecutionPage(
                tuple(self._shown(unit, row) for row in rows[:shown]),
                cursor_after(last.created_at, last.id) if last else None,
            )

        return await self._store.read(work)

    async def redeliver(self, principal: Principal, execution_id: str) -> ShownExecution:
        """Send the webhook now: again if it was delivered or given up, sooner if it waits for its next attempt.

        Raises:
            CoveError: EXECUTION_NOT_FOUND; INVALID_STATE while the program has not ended, and when its result is not
                kept any more.
        """
        now = self._clock()

        def work(unit: UnitOfWork) -> ShownExecution:
            row = _find(unit, principal, execution_id)
            changed = unit.executions.deliver_again(row.id, at=now, until=now + self._give_up_seconds)
            if changed is None:
                raise _not_deliverable(row)
            unit.events.add(_event(row, "webhook.redelivery", principal.actor, now, principal.origin))
            return self._shown(unit, changed)

        shown = await self._store.write(work)
        self._loop.follow(shown.row.id)
        return shown

    def _shown(self, work: UnitOfWork, row: StoredExecution) -> ShownExecution:
        sealed = work.executions.part(row.id, ExecutionPart.CALLBACK) or b""
        try:
            callback = Callback.model_validate_json(self._sealer.open(f"{row.id}/callback", sealed))
        except CoveError:
            return ShownExecution(row, "")
        return ShownExecution(row, callback.url)


def _language(name: str) -> Language:
    language = LANGUAGE_ALIASES.get(name.strip().lower())
    if language is None:
        raise error("UNSUPPORTED_LANGUAGE", f"Sandboxes do not run {name[:40]!r}.", language=name[:40])
    return language


def _program(row: StoredExecution, request: ExecuteAsync) -> bytes:
    """What the agent is asked to start."""
    return (
        BackgroundExecute(
            code=request.code,
            language=row.language,
            timeout=request.timeout,
            workdir=request.workdir,
            env=request.env,
            name=f"async {row.id}",
            execution_id=row.id,
            max_output_bytes=MAX_OUTPUT_BYTES,
        )
        .model_dump_json()
        .encode()
    )


def _namespace_of(work: UnitOfWork, sandbox_id: str) -> str:
    row = work.sandboxes.get(sandbox_id)
    if row is None or row.status is SandboxStatus.DELETED:
        raise error("SANDBOX_NOT_FOUND", f"Sandbox {sandbox_id} was not found: it does not run (any more).")
    return row.namespace


def _add(work: UnitOfWork, row: StoredExecution, program: bytes, callback: bytes, event: StoredEvent) -> None:
    """Insert it within the bounds of its tenant and of the server."""
    _namespace_of(work, row.sandbox_id)
    if work.executions.count_open(namespace=row.namespace) >= MAX_OPEN_OF_NAMESPACE:
        raise _too_many(MAX_OPEN_OF_NAMESPACE, "of this namespace")
    if work.executions.count_open() >= MAX_OPEN:
        raise _too_many(MAX_OPEN, "of this server")
    work.executions.add(row, program=program, callback=callback)
    work.events.add(event)


def _too_many(limit: int, whose: str) -> CoveError:
    return error(
        "RESOURCE_LIMIT_EXCEEDED",
        f"The limit {whose} of {limit} asynchronous executions that have not ended or been delivered is reached.",
        remedy="Wait for some to end, and see to it that their webhooks are answered with a 2xx status.",
        limit=limit,
        current=limit,
        available=0,
    )


def _find(work: UnitOfWork, principal: Principal, execution_id: str) -> StoredExecution:
    row = work.executions.get(execution_id) if is_execution_id(execution_id) else None
    if row is None or not _sees(work, principal, row):
        raise error(
            "EXECUTION_NOT_FOUND",
            f"Execution {execution_id[:80]!r} was not found.",
            remedy="GET /v1/executions lists the asynchronous ones of the last 7 days.",
        )
    return row


def _sees(work: UnitOfWork, principal: Principal, row: StoredExecution) -> bool:
    if principal.client_lease:
        sandbox = work.sandboxes.get(row.sandbox_id)
        return sandbox is not None and principal.sees(sandbox)
    return principal.namespace in (row.namespace, EVERY_NAMESPACE)


def _not_deliverable(row: StoredExecution) -> CoveError:
    if row.delivery is DeliveryState.WAITING:
        return error("INVALID_STATE", "The program has not ended yet.", status=row.status.value)
    return error("INVALID_STATE", "The program's result is not kept any more.", status=row.status.value)


def _event(row: StoredExecution, action: str, actor: str, at: float, origin: Origin) -> StoredEvent:
    return StoredEvent(
        at=at,
        namespace=row.namespace,
        actor=actor,
        action=action,
        subject=row.id,
        details={"sandbox_id": row.sandbox_id, "language": row.language},
        request_id=origin.request_id,
        address=origin.address,
    )
