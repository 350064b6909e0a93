"""The HTTP application: routes, what stands before them, and how errors are answered."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Route

from cove.core.audit import AuditTrail
from cove.core.credentials import Credentials
from cove.core.keys import ApiKeys
from cove.core.namespace_access import NamespaceAccess
from cove.core.sessions import Sessions
from cove.models.errors import CoveError
from cove.models.scopes import NAMESPACE_HEADER
from cove.models.version import VERSION
from cove.server.api.auditing import Auditing
from cove.server.api.authentication import Authentication
from cove.server.api.document import describe
from cove.server.api.errors import on_cove_error, on_http_exception, on_validation_error
from cove.server.api.failed_attempts import FailedAttempts
from cove.server.api.front import BodyLimit, RequestContext
from cove.server.api.microsandbox import MAX_RPC_BODY_BYTES, RPC_PATH, MicrosandboxErrors
from cove.server.api.rate_limits import RateLimits
from cove.server.api.uploads import UploadDoor
from cove.server.mcp.bounds import MAX_BODY_BYTES as MAX_MCP_BODY_BYTES
from cove.server.mcp.endpoint import McpEndpoint
from cove.server.mcp.resource_server import ResourceServer
from cove.server.metrics import Metrics
from cove.server.settings import Settings
from cove.server.uploads import UploadShelf

_DESCRIPTION = (
    "Self-hosted code-execution sandboxes for AI agents.\n\n"
    "A key has scopes: GET needs `read`; keys, templates and the organization are changed with `admin`; everything"
    f" else needs `exec`. With a key that may enter any namespace, `{NAMESPACE_HEADER}` names the one that a request is"
    " about; `*` shows sandboxes, asynchronous executions and audit entries of all."
)
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_application(
    settings: Settings,
    *,
    routers: Sequence[APIRouter],
    keys: ApiKeys,
    credentials: Credentials,
    namespaces: NamespaceAccess,
    sessions: Sessions,
    resource_server: ResourceServer | None,
    attempts: FailedAttempts,
    shelf: UploadShelf,
    mcp: McpEndpoint,
    metrics: Metrics,
    audit: AuditTrail,
    lifespan: Lifespan,
) -> FastAPI:
    """Put it together. It never redirects, and serves no page that would load scripts from elsewhere."""
    app = FastAPI(
        title="Cove",
        version=VERSION,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        lifespan=lifespan,
    )
    for router in routers:
        app.include_router(router)
    for path in (mcp.path, f"{mcp.path}/"):
        app.router.routes.append(Route(path, mcp))
    app.add_exception_handler(CoveError, on_cove_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    # The last one added is the outermost.
    if settings.requests_per_minute or settings.creates_per_minute:
        app.add_middleware(
            RateLimits,
            requests_per_minute=settings.requests_per_minute,
            creates_per_minute=settings.creates_per_minute,
        )
    app.add_middleware(
        Authentication,
        keys=keys,
        credentials=credentials,
        namespaces=namespaces,
        sessions=sessions,
        resource_server=resource_server,
        attempts=attempts,
        dev=settings.dev,
        origins=frozenset(settings.allowed_origins),
    )
    larger = {mcp.path: MAX_MCP_BODY_BYTES, RPC_PATH: MAX_RPC_BODY_BYTES}
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, larger=larger)
    app.add_middleware(UploadDoor, shelf=shelf)
    app.add_middleware(MicrosandboxErrors)
    app.add_middleware(Auditing, audit=audit)
    app.add_middleware(RequestContext, metrics=metrics)
    app.openapi = partial(_document_once, app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _document_once(app: FastAPI) -> dict[str, object]:
    if app.openapi_schema is None:
        app.openapi_schema = describe(app)
    return app.openapi_schema
