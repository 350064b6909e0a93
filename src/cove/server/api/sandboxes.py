"""Routes of sandboxes (contract 2.3). Every success has a JSON body: clients parse even the answer to a kill."""

import time
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from cove.core.clock import utc
from cove.core.idempotency import RepeatableCreates
from cove.core.lifecycle import Lifecycle
from cove.core.pages import MAX_PAGE
from cove.models.errors import CoveError
from cove.models.sandboxes import (
    AgentToken,
    CreatedSandbox,
    CreateSandbox,
    SandboxInfo,
    SandboxPage,
    SandboxStatus,
    SandboxUsage,
    SetTimeout,
    StatusAnswer,
    TimeoutAnswer,
)
from cove.server.api.answers import answer
from cove.server.api.context import principal_of, request_id_of
from cove.server.api.presentation import Presentation
from cove.server.api.sandbox_usage import usage_of
from cove.server.metrics import Metrics

_CLIENT_GONE = 499
_ASYNC = "respond-async"
_ONE = "/v1/sandboxes/{sandbox_id}"


def sandbox_routes(
    creates: RepeatableCreates, lifecycle: Lifecycle, presentation: Presentation, metrics: Metrics
) -> APIRouter:
    """The routes, over these objects."""
    router = APIRouter(tags=["sandboxes"])
    _add_creation(router, creates, presentation, metrics)
    _add_reading(router, lifecycle, presentation)
    _add_ending(router, lifecycle)
    _add_states(router, lifecycle)
    return router


def _add_creation(router: APIRouter, creates: RepeatableCreates, presentation: Presentation, metrics: Metrics) -> None:
    @router.post("/v1/sandboxes", status_code=201, response_model=CreatedSandbox)
    async def create_sandbox(
        request: Request, body: CreateSandbox, idempotency_key: Annotated[str | None, Header()] = None
    ) -> Response:
        """Create a sandbox. It runs, and its agent answers, when this returns.

        Sent again with the same `Idempotency-Key` and body, it answers with the same sandbox and a new token.
        """
        started = time.perf_counter()
        try:
            outcome = await creates.create(
                principal_of(request.scope), body, key=idempotency_key, gone=request.is_disconnected
            )
        except CoveError as failure:
            metrics.refused(failure.code)
            raise
        if outcome is None:
            metrics.refused("CLIENT_GONE")
            return Response(status_code=_CLIENT_GONE)
        creation = outcome.creation
        answered = answer(presentation.created(creation.sandbox, creation.token, request_id_of(request.scope)), 201)
        if outcome.replayed:
            answered.headers["Idempotent-Replayed"] = "true"
        else:
            metrics.created(time.perf_counter() - started, pooled=creation.pooled)
        return answered


def _add_reading(router: APIRouter, lifecycle: Lifecycle, presentation: Presentation) -> None:
    @router.get("/v1/sandboxes", response_model=SandboxPage)
    async def list_sandboxes(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        cursor: str | None = None,
        status: SandboxStatus | None = None,
        region: str | None = None,
        name: str | None = None,
    ) -> Response:
        """List sandboxes, newest first. Those that have ended appear only with `status=deleted`."""
        page = await lifecycle.list(
            principal_of(request.scope), limit=limit, cursor=cursor, status=status, region=region, name=name
        )
        return answer(
            SandboxPage.model_construct(
                None,
                data=tuple(presentation.sandbox(row) for row in page.sandboxes),
                has_more=page.next_cursor is not None,
                next_cursor=page.next_cursor,
                request_id=request_id_of(request.scope),
            )
        )

    @router.get(_ONE, response_model=SandboxInfo)
    async def get_sandbox(request: Request, sandbox_id: str) -> Response:
        """Get a sandbox; a 404 says why it is gone."""
        row = await lifecycle.get(principal_of(request.scope), sandbox_id)
        return answer(presentation.sandbox(row, request_id_of(request.scope)))

    @router.get(_ONE + "/usage", response_model=SandboxUsage)
    async def get_sandbox_usage(request: Request, sandbox_id: str) -> Response:
        """Get what a sandbox uses now, each with its limit, as its host counts it."""
        _note(sandbox_id)
        row, used = await lifecycle.usage(principal_of(request.scope), sandbox_id)
        return answer(usage_of(row, used, request_id_of(request.scope)))


def _add_ending(router: APIRouter, lifecycle: Lifecycle) -> None:
    @router.delete(_ONE, response_model=StatusAnswer)
    async def delete_sandbox(
        request: Request, sandbox_id: str, prefer: Annotated[str | None, Header(max_length=200)] = None
    ) -> Response:
        """Kill a sandbox; nothing of it is left when this returns. With `Prefer: respond-async` (RFC 7240) the answer
        may come with status 202 when it has ended for everyone, and what it held is freed a moment later."""
        _note(sandbox_id)
        principal = principal_of(request.scope)
        if prefer is None or _ASYNC not in (part.strip().lower() for part in prefer.split(",")):
            await lifecycle.delete(principal, sandbox_id)
        elif not await lifecycle.delete_soon(principal, sandbox_id):
            answered = _status(request, sandbox_id, SandboxStatus.DELETED)
            answered.status_code = 202
            answered.headers["Preference-Applied"] = _ASYNC
            return answered
        return _status(request, sandbox_id, SandboxStatus.DELETED)

    @router.put(_ONE + "/timeout", response_model=TimeoutAnswer)
    async def set_timeout(request: Request, sandbox_id: str, body: SetTimeout) -> Response:
        """Let it end so many seconds from now; 0 means never."""
        _note(sandbox_id)
        row = await lifecycle.set_timeout(principal_of(request.scope), sandbox_id, body.timeout_seconds)
        return answer(
            TimeoutAnswer(
                id=row.id,
                timeout_seconds=body.timeout_seconds,
                expires_at=None if row.deadline is None else utc(row.deadline),
                request_id=request_id_of(request.scope),
            )
        )

    @router.post(_ONE + "/token/refresh", response_model=AgentToken)
    async def refresh_token(request: Request, sandbox_id: str) -> Response:
        """Get a new token for the sandbox's agent."""
        _note(sandbox_id)
        return answer(await lifecycle.refresh_token(principal_of(request.scope), sandbox_id))


def _add_states(router: APIRouter, lifecycle: Lifecycle) -> None:
    @router.post(_ONE + "/pause", response_model=StatusAnswer)
    async def pause_sandbox(request: Request, sandbox_id: str) -> Response:
        """Freeze all processes; memory stays. Idempotent."""
        _note(sandbox_id)
        row = await lifecycle.pause(principal_of(request.scope), sandbox_id)
        return _status(request, row.id, row.status)

    @router.post(_ONE + "/resume", response_model=StatusAnswer)
    async def resume_sandbox(request: Request, sandbox_id: str) -> Response:
        """Let a paused sandbox go on. Idempotent."""
        _note(sandbox_id)
        row = await lifecycle.resume(principal_of(request.scope), sandbox_id)
        return _status(request, row.id, row.status)

    @router.post(_ONE + "/stop", response_model=StatusAnswer)
    async def stop_sandbox(request: Request, sandbox_id: str) -> Response:
        """End all processes; the disk stays, and the timeout goes on. Idempotent."""
        _note(sandbox_id)
        row = await lifecycle.stop(principal_of(request.scope), sandbox_id)
        return _status(request, row.id, row.status)

    @router.post(_ONE + "/start", response_model=StatusAnswer)
    async def start_sandbox(request: Request, sandbox_id: str) -> Response:
        """Let a stopped sandbox run again, on its disk; its agent answers when this returns. Idempotent."""
        _note(sandbox_id)
        row = await lifecycle.start(principal_of(request.scope), sandbox_id)
        return _status(request, row.id, row.status)


def _status(request: Request, sandbox_id: str, status: SandboxStatus) -> Response:
    return answer(StatusAnswer(id=sandbox_id, status=status, request_id=request_id_of(request.scope)))


def _note(sandbox_id: str) -> None:
    structlog.contextvars.bind_contextvars(sandbox_id=sandbox_id[:64])
