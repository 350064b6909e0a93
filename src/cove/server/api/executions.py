"""Routes of asynchronous executions: the one on the agent's address (contract 4.2), and those to look after them."""

import re
from datetime import datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from cove.core.clock import utc
from cove.core.executions import Executions, ShownExecution
from cove.core.pages import MAX_PAGE
from cove.core.principal import UNNAMED_ACTOR
from cove.core.tokens import AgentClaims, AgentTokens
from cove.models.async_executions import (
    AsyncExecutionAccepted,
    AsyncExecutionInfo,
    AsyncExecutionPage,
    DeliveryInfo,
    DeliveryState,
    ExecuteAsync,
)
from cove.models.errors import error
from cove.server.api.answers import answer
from cove.server.api.context import header_of, origin_of, principal_of, request_id_of

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_ONE = "/v1/executions/{execution_id}"


def execution_routes(executions: Executions, tokens: AgentTokens) -> APIRouter:
    """The routes, over these objects."""
    router = APIRouter(tags=["executions"])
    _add_submission(router, executions, tokens)
    _add_reading(router, executions)
    return router


def _add_submission(router: APIRouter, executions: Executions, tokens: AgentTokens) -> None:
    def authorised(request: Request, sandbox_id: str) -> AgentClaims:
        """Only the token of this very sandbox. The gateway has looked at it; nothing here relies on that."""
        bearer = _BEARER.fullmatch(header_of(request.scope, b"authorization") or "")
        if bearer is None:
            raise error("UNAUTHORIZED", "This request needs the sandbox's token.")
        claims = tokens.claims(bearer.group(1))
        if claims.sandbox_id != sandbox_id:
            raise error(
                "FORBIDDEN",
                "The token is for another sandbox.",
                remedy="Get a token of this one: POST /v1/sandboxes/{id}/token/refresh.",
            )
        return claims

    # Not in this document: for clients it is a route of the agent.
    @router.post(
        "/sandboxes/{sandbox_id}/execute/async",
        response_model=AsyncExecutionAccepted,
        include_in_schema=False,
    )
    async def execute_async(
        request: Request, sandbox_id: str, body: ExecuteAsync, claims: Annotated[AgentClaims, Depends(authorised)]
    ) -> Response:
        """Run code, and POST its result to a URL when it has ended."""
        structlog.contextvars.bind_contextvars(sandbox_id=sandbox_id)
        actor = claims.actor or UNNAMED_ACTOR
        return answer(await executions.submit(sandbox_id, body, actor=actor, origin=origin_of(request.scope)))


def _add_reading(router: APIRouter, executions: Executions) -> None:
    @router.get("/v1/executions", response_model=AsyncExecutionPage)
    async def list_executions(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        cursor: str | None = None,
        sandbox_id: str | None = None,
    ) -> Response:
        """List asynchronous executions and their webhooks, newest first; those of the last seven days."""
        page = await executions.list(principal_of(request.scope), limit=limit, cursor=cursor, sandbox_id=sandbox_id)
        return answer(
            AsyncExecutionPage(
                data=tuple(_shown(execution) for execution in page.executions),
                has_more=page.next_cursor is not None,
                next_cursor=page.next_cursor,
                request_id=request_id_of(request.scope),
            )
        )

    @router.get(_ONE, response_model=AsyncExecutionInfo)
    async def get_execution(request: Request, execution_id: str) -> Response:
        """Get an asynchronous execution: how far its program and its webhook have got."""
        found = await executions.get(principal_of(request.scope), execution_id)
        return answer(_shown(found, request_id_of(request.scope)))

    @router.post(_ONE + "/redeliver", response_model=AsyncExecutionInfo)
    async def redeliver_execution(request: Request, execution_id: str) -> Response:
        """Send its webhook now: once more, or sooner than it would be."""
        found = await executions.redeliver(principal_of(request.scope), execution_id)
        return answer(_shown(found, request_id_of(request.scope)))


def _shown(execution: ShownExecution, request_id: str | None = None) -> AsyncExecutionInfo:
    row = execution.row
    return AsyncExecutionInfo(
        execution_id=row.id,
        sandbox_id=row.sandbox_id,
        status=row.status,
        language=row.language,
        timeout=row.timeout_seconds,
        callback_url=execution.callback_url,
        created_at=utc(row.created_at),
        started_at=_time(row.started_at),
        ended_at=_time(row.ended_at),
        exit_code=row.exit_code,
        delivery=DeliveryInfo(
            state=row.delivery,
            attempts=row.attempts,
            last_error=None if row.delivery is DeliveryState.DELIVERED else row.last_error,
            next_attempt_at=_time(row.next_attempt_at),
            delivered_at=_time(row.delivered_at),
        ),
        request_id=request_id,
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else utc(seconds)
