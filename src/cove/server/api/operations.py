"""Routes for those who run the server: health and metrics."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from cove.core.audit import AuditTrail
from cove.core.pool import WarmPool
from cove.core.storage import Store
from cove.models.base import Contract
from cove.models.errors import CoveError, error
from cove.models.network import EgressTotals
from cove.models.version import VERSION
from cove.server.api.answers import answer
from cove.server.api.context import principal_of, request_id_of
from cove.server.metrics import CONTENT_TYPE, Metrics

_HOST_SECONDS: Final = 2.0


class ServerHealth(Contract):
    """Answer to `GET /health`. `status` is what clients test; `message` is for people."""

    status: str = "healthy"
    message: str
    version: str = VERSION
    request_id: str | None = None


def operation_routes(
    store: Store,
    pool: WarmPool,
    metrics: Metrics,
    *,
    audit: AuditTrail,
    host_answers: Callable[[], bool],
    network_totals: Callable[[], Awaitable[EgressTotals]],
) -> APIRouter:
    """The routes, over these objects."""
    router = APIRouter(tags=["operations"])

    @router.get("/health", response_model=ServerHealth)
    async def health(request: Request) -> Response:
        """Whether this server answers. Needs no key."""
        message = "Cove is ready." if host_answers() else "Cove is up, but the host daemon does not answer."
        return answer(ServerHealth(message=message, request_id=request_id_of(request.scope)))

    @router.get("/metrics", response_class=Response)
    async def prometheus(request: Request) -> Response:
        """Figures in Prometheus' text format. Only for keys of the namespace `default`: they are about everyone."""
        if not principal_of(request.scope).is_operator:
            raise error(
                "FORBIDDEN", "Metrics are about the whole server.", remedy="Use a key of the namespace `default`."
            )
        metrics.audit_lost(audit.lost)
        counts = await store.read(lambda work: work.sandboxes.count_by_status())
        egress = await _known(network_totals) if host_answers() else None
        return Response(metrics.render(counts, pool.sizes(), egress), media_type=CONTENT_TYPE)

    return router


async def _known(network_totals: Callable[[], Awaitable[EgressTotals]]) -> EgressTotals | None:
    """The other figures do not depend on the host."""
    try:
        async with asyncio.timeout(_HOST_SECONDS):
            return await network_totals()
    except (CoveError, TimeoutError):
        return None
