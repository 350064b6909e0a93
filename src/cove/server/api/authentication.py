"""Who is asking: an API key in `X-API-Key` or `Authorization: Bearer`. Every path is closed unless listed here."""

import re
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from cove.core.credentials import Credentials
from cove.core.delegated_keys import is_delegated
from cove.core.keys import MICROSANDBOX_PREFIX, ApiKeys
from cove.core.namespace_access import NamespaceAccess
from cove.core.principal import DEVELOPER, Principal
from cove.core.sessions import Sessions, is_session_token
from cove.models.errors import CoveError, error
from cove.models.scopes import NAMESPACE_HEADER
from cove.server.api.access import check_scope, entered
from cove.server.api.context import MCP_PATHS, header_of, origin_of, set_principal, set_resource_metadata
from cove.server.api.failed_attempts import FailedAttempts
from cove.server.mcp.resource_metadata import METADATA_PATHS
from cove.server.mcp.resource_server import ResourceServer, is_access_token

LOGIN_PATHS = frozenset({"/auth/workos-callback", "/auth/refresh"})
"""They authenticate by their body."""

OPEN_PATHS = frozenset({"/health", "/api/v1/health", "/openapi.json"}) | LOGIN_PATHS | METADATA_PATHS
_AGENT_PATHS = re.compile(r"/sandboxes/[0-9]{10}[a-z0-9]{8}/execute/async\Z")
"""Routes of an agent that are served here: they check the sandbox's token themselves, and know no API keys."""

_BEARER = "bearer "
_NAMESPACE = NAMESPACE_HEADER.lower().encode("ascii")
_MAX_KEY_CHARACTERS = 1024
_ACCOUNT = "/auth/"


class Authentication:
    """ASGI middleware: puts a principal into the scope, or refuses."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: ApiKeys,
        credentials: Credentials,
        namespaces: NamespaceAccess,
        sessions: Sessions,
        resource_server: ResourceServer | None,
        attempts: FailedAttempts,
        dev: bool,
        origins: frozenset[str],
    ) -> None:
        self._app = app
        self._keys = keys
        self._credentials = credentials
        self._namespaces = namespaces
        self._sessions = sessions
        self._resource_server = resource_server
        self._attempts = attempts
        self._dev = dev
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            if self._resource_server is not None and scope["path"] in MCP_PATHS:
                set_resource_metadata(scope, self._resource_server.metadata_url)
            self._check_origin(scope)
            if scope["path"] not in OPEN_PATHS and not _AGENT_PATHS.match(scope["path"]):
                principal = await self._placed(scope, await self._principal(scope))
                principal = replace(principal, origin=origin_of(scope))
                structlog.contextvars.bind_contextvars(namespace=principal.namespace, actor=principal.actor)
                set_principal(scope, principal)
        await self._app(scope, receive, send)

    async def _placed(self, scope: Scope, principal: Principal) -> Principal:
        method, path = scope["method"], scope["path"]
        set_principal(scope, principal)  # Whoever is refused from here on is known.
        check_scope(principal, method, path)
        name = header_of(scope, _NAMESPACE)
        return principal if name is None else await entered(self._namespaces, principal, name, method, path)

    async def _principal(self, scope: Scope) -> Principal:
        key = _sent_key(scope)
        # A delegated key says more than that nobody has to show one: whose lease it is.
        if self._dev and not (key and is_delegated(key)):
            return DEVELOPER
        if not key:
            raise error("AUTHENTICATION_REQUIRED", "This request carries no API key.")
        resource_server = self._resource_server
        if resource_server is not None and scope["path"] in MCP_PATHS and is_access_token(key):
            return await self._holder(scope, resource_server.principal_of(key))
        if len(key) > _MAX_KEY_CHARACTERS:
            raise self._attempts.noted(scope, error("AUTHENTICATION_REQUIRED", "The API key is malformed."))
        if is_session_token(key) and scope["path"].startswith(_ACCOUNT):
            return await self._holder(scope, self._holder_of_session(key))
        return await self._holder(scope, self._credentials.principal_of(key))

    async def _holder_of_session(self, token: str) -> Principal:
        return await self._keys.principal_of(self._sessions.key_of(token))

    async def _holder(self, scope: Scope, check: Awaitable[Principal]) -> Principal:
        """Whom a check finds; failures are counted for the client's address."""
        try:
            return await check
        except CoveError as failure:
            raise self._attempts.noted(scope, failure) from failure

    def _check_origin(self, scope: Scope) -> None:
        """Refuse pages of other sites: a browser sends their requests from the user's machine, where `--dev` asks
        for no key (Fetch Standard, `Origin` header)."""
        origin = header_of(scope, b"origin")
        if origin is None or origin.rstrip("/") in self._origins:
            return
        if urlsplit(origin).netloc != header_of(scope, b"host") or origin == "null":
            raise error(
                "FORBIDDEN",
                "This server takes no requests from web pages of other origins.",
                remedy="Add the page's origin to COVE_ALLOWED_ORIGINS.",
            )


def _sent_key(scope: Scope) -> str | None:
    key = header_of(scope, b"x-api-key")
    if key:
        return key.strip()
    return _microsandbox_key(scope) or _bearer(header_of(scope, b"authorization") or "")


def _bearer(value: str) -> str | None:
    return value[len(_BEARER) :].strip() if value.lower().startswith(_BEARER) else None


def _microsandbox_key(scope: Scope) -> str | None:
    """Clients of microsandbox may send their key without a scheme, and in Proxy-Authorization, which came first."""
    for name in (b"proxy-authorization", b"authorization"):
        value = (header_of(scope, name) or "").strip()
        key = _bearer(value) or value
        if key.startswith(MICROSANDBOX_PREFIX):
            return key
    return None


SECURITY_SCHEMES: Mapping[str, Mapping[str, str]] = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
