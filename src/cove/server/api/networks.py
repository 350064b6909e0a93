"""Routes of sandboxes' networks."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from cove.core.lifecycle import Lifecycle
from cove.core.planning import CreationPolicy, network_in_force
from cove.models.network import NetworkPolicy, SandboxNetwork
from cove.server.api.answers import answer
from cove.server.api.context import principal_of, request_id_of

_PATH = "/v1/sandboxes/{sandbox_id}/network"


def network_routes(lifecycle: Lifecycle, policy: CreationPolicy) -> APIRouter:
    """The routes, over these objects."""
    router = APIRouter(tags=["sandboxes"])

    @router.get(_PATH, response_model=SandboxNetwork)
    async def get_network(
        request: Request, sandbox_id: str, after: Annotated[int, Query(ge=0, le=2**53)] = 0
    ) -> Response:
        """Get what a sandbox may reach, and what it did: totals, and the latest connections and look-ups, those with a
        sequence number above `after`."""
        bind_contextvars(sandbox_id=sandbox_id[:32])
        report = await lifecycle.network(principal_of(request.scope), sandbox_id, after=after)
        return answer(SandboxNetwork(id=sandbox_id, request_id=request_id_of(request.scope), **dict(report)))

    @router.put(_PATH, response_model=SandboxNetwork)
    async def set_network(request: Request, sandbox_id: str, body: NetworkPolicy) -> Response:
        """Change what a sandbox may reach, while it runs. Connections that are not allowed any more are cut."""
        bind_contextvars(sandbox_id=sandbox_id[:32])
        principal = principal_of(request.scope)
        row = await lifecycle.set_network(principal, sandbox_id, network_in_force(body, policy))
        return answer(SandboxNetwork(id=row.id, policy=row.network, request_id=request_id_of(request.scope)))

    return router
