"""On whose behalf tools act that are called over HTTP: whoever the request was authenticated as."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from cove.core.delegated_keys import DelegatedKeys
from cove.core.principal import Principal
from cove.mcp.callers import Caller, Handles
from cove.models.scopes import Scope
from cove.sdk import AsyncControlPlane
from cove.server.api.context import principal_of, request_id_of
from cove.server.mcp.bounds import MAX_ANSWER_BYTES

_ORIGIN = "http://localhost"
_LIMITS = httpx2.Limits(max_connections=1024, max_keepalive_connections=64, keepalive_expiry=15.0)


class HttpCallers:
    """Implements `Callers`. Each request gets a key of its own, which is withdrawn when it has been answered.

    Args:
        door: unix socket of the server's own gateway.
    """

    def __init__(self, keys: DelegatedKeys, door: Path) -> None:
        self._keys = keys
        self._door = _Door(door)
        self._handles = Handles()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._door.aclose()

    @asynccontextmanager
    async def of(self, request: Any) -> AsyncGenerator[Caller]:
        """Whoever sent the request."""
        principal, number = principal_of(request.scope), request_id_of(request.scope)
        with self._keys.lent(replace(principal, counted=True)) as key:
            control = AsyncControlPlane(
                api_key=key,
                base_url=_ORIGIN,
                transport=_Numbered(self._door, number),
                max_answer_bytes=MAX_ANSWER_BYTES,
            )
            yield Caller(control, owner=identity_of(principal), scopes=principal.scopes, handles=self._handles)

    def scopes(self, request: Any) -> frozenset[Scope]:
        """What the request's credential allows."""
        return principal_of(request.scope).scopes


def identity_of(principal: Principal) -> str:
    """Names the principal and what it may do: what one credential has opened is not for another that may less."""
    return "\0".join((principal.namespace, principal.actor, principal.client_lease, *sorted(principal.scopes)))


class _Door(httpx2.AsyncBaseTransport):
    """Requests to this very server, whatever its public address: that may be https, or a name of a proxy."""

    def __init__(self, path: Path) -> None:
        # Nothing is encrypted on a unix socket; reading the machine's authorities would take 40 ms.
        self._inner = httpx2.AsyncHTTPTransport(uds=str(path), verify=False, limits=_LIMITS)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it on; the Host field says already where it is for."""
        if request.url.scheme != "http":
            request.url = request.url.copy_with(scheme="http")
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Numbered(httpx2.AsyncBaseTransport):
    """Gives requests the id of the one that they are made for, so that the log shows what belongs together."""

    def __init__(self, door: _Door, request_id: str) -> None:
        self._door = door
        self._request_id = request_id

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it on."""
        request.headers["X-Request-ID"] = self._request_id
        return await self._door.handle_async_request(request)
