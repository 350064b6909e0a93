"""The way to one sandbox's agent, with a token that is renewed when it expires."""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from cove.models.errors import AuthenticationFailed
from cove.models.sandboxes import AgentToken, CreatedSandbox, SandboxInfo
from cove.sdk._async.control import AsyncControlPlane
from cove.sdk._async.wire import Body, Headers
from cove.sdk._requests import Call, check_seconds

if TYPE_CHECKING:
    from cove.sdk._async.websocket import AsyncSocket

_EXPIRED = "TOKEN_EXPIRED"
_TOKEN_MARGIN_SECONDS = 60.0


class AsyncAgentLink:
    """Requests to the agent of one sandbox. The API key never goes there: the agent sees a token for itself only."""

    def __init__(self, control: AsyncControlPlane, info: SandboxInfo) -> None:
        self.control = control
        self.sandbox_id = info.id
        self.url = control.wire.origin(info.public_host)
        self._token = ""
        self._expires = -math.inf
        if isinstance(info, CreatedSandbox):
            self._keep(AgentToken(auth_token=info.auth_token, token_expires_at=info.token_expires_at))

    async def send(self, call: Call, *, body: Body | None = None) -> bytes:
        """The agent's answer. An expired token is renewed, once; the refused request had no effect."""
        try:
            return await self.control.wire.send(self.url, call, headers=await self._headers(), body=body)
        except AuthenticationFailed as failure:
            if failure.code != _EXPIRED:
                raise
        await self.refresh_token()
        return await self.control.wire.send(self.url, call, headers=await self._headers(), body=body)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """The agent's answer in pieces."""
        async with AsyncExitStack() as opened:
            try:
                pieces = await opened.enter_async_context(self._stream(call, await self._headers()))
            except AuthenticationFailed as failure:
                if failure.code != _EXPIRED:
                    raise
                await self.refresh_token()
                pieces = await opened.enter_async_context(self._stream(call, await self._headers()))
            yield pieces

    async def websocket(self, path: str, *, timeout: float) -> "AsyncSocket":
        """An open WebSocket; `timeout` seconds for its handshake.

        Raises:
            CoveError: it was refused, or nobody answered.
        """
        # Loaded at the first one: most programs never open a WebSocket.
        from cove.sdk._async.websocket import AsyncSocket

        seconds, wire = check_seconds("timeout", timeout), self.control.wire
        try:
            return await AsyncSocket.open(wire, self.url, path, headers=await self._headers(), timeout=seconds)
        except AuthenticationFailed as failure:
            if failure.code != _EXPIRED:
                raise
        await self.refresh_token()
        return await AsyncSocket.open(wire, self.url, path, headers=await self._headers(), timeout=seconds)

    async def token(self) -> str:
        """A token that is valid for a minute at least, as far as this machine's clock can tell."""
        if time.time() > self._expires - _TOKEN_MARGIN_SECONDS:
            await self.refresh_token()
        return self._token

    async def refresh_token(self) -> AgentToken:
        """Get a new token and use it from now on."""
        token = await self.control.refresh_token(self.sandbox_id)
        self._keep(token)
        return token

    def _stream(self, call: Call, headers: Headers) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self.control.wire.stream(self.url, call, headers=headers)

    async def _headers(self) -> Headers:
        if not self._token:
            await self.refresh_token()
        return (("Authorization", f"Bearer {self._token}"),)

    def _keep(self, token: AgentToken) -> None:
        self._token = token.auth_token
        self._expires = token.token_expires_at.timestamp()
