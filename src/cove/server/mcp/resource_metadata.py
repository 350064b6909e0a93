"""The document that tells clients of `/mcp` who issues access tokens for it (RFC 9728)."""

from typing import Final

from fastapi import APIRouter
from starlette.responses import JSONResponse

from cove.models.scopes import Scope

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
METADATA_PATHS: Final = frozenset({WELL_KNOWN, f"{WELL_KNOWN}/mcp"})
"""With the resource's path behind it (§3.1), and without, where some clients look."""


def metadata_url(base_url: str) -> str:
    """Where the document is."""
    return f"{base_url}{WELL_KNOWN}/mcp"


def metadata_routes(*, resource: str, issuer: str) -> APIRouter:
    """The routes. Whoever may read this needs no key."""
    router = APIRouter(include_in_schema=False)
    document = {
        "resource": resource,
        "resource_name": "Cove sandboxes",
        "authorization_servers": [issuer],
        "scopes_supported": [scope.value for scope in Scope],
        "bearer_methods_supported": ["header"],
    }

    async def protected_resource() -> JSONResponse:
        return JSONResponse(document)

    for path in sorted(METADATA_PATHS):
        router.add_api_route(path, protected_resource, methods=["GET"])
    return router
