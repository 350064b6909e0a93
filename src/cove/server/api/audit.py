"""`GET /v1/audit`: who did what to which sandbox, key, template."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from cove.core.audit_pages import AuditPages
from cove.core.clock import utc
from cove.core.pages import MAX_PAGE
from cove.models.audit import AUDIT_PATH, AuditEntry, AuditPage
from cove.models.scopes import NAMESPACE_HEADER
from cove.models.stored import EventQuery, StoredEvent
from cove.server.api.answers import answer
from cove.server.api.context import header_of, principal_of, request_id_of

_Text = Annotated[str | None, Query(min_length=1, max_length=200)]
_Action = Annotated[str | None, Query(min_length=1, max_length=64, pattern=r"^[a-z_.]+$")]
_NAMESPACE = NAMESPACE_HEADER.lower().encode("ascii")


def audit_routes(pages: AuditPages) -> APIRouter:
    """The route, over these pages."""
    router = APIRouter(tags=["audit"])

    @router.get(AUDIT_PATH, response_model=AuditPage)
    async def list_audit_entries(
        request: Request,
        actor: _Text = None,
        subject: _Text = None,
        sandbox_id: _Text = None,
        action: _Action = None,
        outcome: _Text = None,
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        cursor: str | None = None,
    ) -> Response:
        """Show the audit log, newest first: what was done, what was run, what was refused. `action` is what actions
        begin with. A key that may enter any namespace sees all of them, unless it names one."""
        query = EventQuery(
            namespace="",
            actor=actor,
            subject=subject,
            sandbox_id=sandbox_id,
            action=action,
            outcome=outcome,
            since=None if since is None else since.timestamp(),
            until=None if until is None else until.timestamp(),
            limit=limit,
        )
        everything = header_of(request.scope, _NAMESPACE) is None
        page = await pages.page(principal_of(request.scope), query, everything=everything, cursor=cursor)
        return answer(
            AuditPage(
                data=tuple(entry_of(event) for event in page.events),
                has_more=page.next_cursor is not None,
                next_cursor=page.next_cursor,
                request_id=request_id_of(request.scope),
            )
        )

    return router


def entry_of(event: StoredEvent) -> AuditEntry:
    """The entry as clients see it."""
    return AuditEntry(
        id=event.id or 0,
        at=utc(event.at),
        namespace=event.namespace,
        actor=event.actor,
        action=event.action,
        subject=event.subject,
        outcome=event.outcome,
        request_id=event.request_id,
        address=event.address,
        details=event.details,
    )
