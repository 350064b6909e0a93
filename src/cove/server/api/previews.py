"""Routes of previews: links to programs in sandboxes, and who may do without one."""

from fastapi import APIRouter, Request
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from cove.core.clock import utc
from cove.core.previews import Previews
from cove.models.previews import CreatePreviewLink, PreviewLink, SandboxPreviews, SetPreviewAccess
from cove.models.stored import StoredSandbox
from cove.server.api.answers import answer
from cove.server.api.context import principal_of, request_id_of
from cove.server.api.presentation import Presentation

_PATH = "/v1/sandboxes/{sandbox_id}/previews"


def preview_routes(previews: Previews, presentation: Presentation) -> APIRouter:
    """The routes, over these objects."""
    router = APIRouter(tags=["sandboxes"])

    @router.post(_PATH, status_code=201, response_model=PreviewLink)
    async def create_preview_link(request: Request, sandbox_id: str, body: CreatePreviewLink) -> Response:
        """Make a link to a program in a sandbox that listens on a port, for whoever shall see it. It works for that
        port until it expires, the sandbox ends, or the sandbox's links are revoked."""
        bind_contextvars(sandbox_id=sandbox_id[:32])
        link = await previews.link(
            principal_of(request.scope), sandbox_id, port=body.port, seconds=body.expires_in_seconds
        )
        return answer(
            PreviewLink(
                id=link.sandbox.id,
                port=link.port,
                url=presentation.link(link.sandbox.id, link.port, link.token),
                token=link.token,
                expires_at=utc(link.expires_at),
                access=presentation.access(link.sandbox),
                request_id=request_id_of(request.scope),
            ),
            201,
        )

    @router.put(_PATH, response_model=SandboxPreviews)
    async def set_preview_access(request: Request, sandbox_id: str, body: SetPreviewAccess) -> Response:
        """Change who may reach programs in a sandbox, from the next request on."""
        bind_contextvars(sandbox_id=sandbox_id[:32])
        return _shown(request, await previews.set_access(principal_of(request.scope), sandbox_id, body.access))

    @router.delete(_PATH, response_model=SandboxPreviews)
    async def revoke_preview_links(request: Request, sandbox_id: str) -> Response:
        """Revoke all links that were made for a sandbox, from the next request on."""
        bind_contextvars(sandbox_id=sandbox_id[:32])
        return _shown(request, await previews.revoke(principal_of(request.scope), sandbox_id))

    def _shown(request: Request, row: StoredSandbox) -> Response:
        return answer(
            SandboxPreviews(id=row.id, access=presentation.access(row), request_id=request_id_of(request.scope))
        )

    return router
