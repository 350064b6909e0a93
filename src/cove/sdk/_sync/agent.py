# Generated from src/cove/sdk/_async/agent.py by tools/generate_sync_sdk.py. Do not edit.

"""The way to one sandbox's agent, with a token that is renewed when it expires."""

import math
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from cove.models.errors import AuthenticationFailed
from cove.models.sandboxes import AgentToken, CreatedSandbox, SandboxInfo
from cove.sdk._requests import Call, check_seconds
from cove.sdk._sync.control import ControlPlane
from cove.sdk._sync.wire import Body, Headers

if TYPE_CHECKING:
    from cove.sdk._sync.websocket import Socket

_EXPIRED = "TOKEN_EXPIRED"
_TOKEN_MARGIN_SECONDS = 60.0


class AgentLink:
    """Requests to the agent of one sandbox. The API key never goes there: the agent sees a token for itself only."""

    def __init__(self, control: ControlPlane, info: SandboxInfo) -> None:
        self.control = control
        self.sandbox_id = info.id
        self.url = control.wire.origin(info.public_host)
        self._token = ""
        self._expires = -math.inf
        if isinstance(info, CreatedSandbox):
            self._keep(AgentToken(auth_token=info.auth_token, token_expires_at=info.token_expires_at))

    def send(self, call: Call, *, body: Body | None = None) -> bytes:
        """The agent's answer. An expired token is renewed, once; the refused request had no effect."""
        try:
            return self.control.wire.send(self.url, call, headers=self._headers(), body=body)
        except AuthenticationFailed as failure:
            if failure.code != _EXPIRED:
                raise
        self.refresh_token()
        return self.control.wire.send(self.url, call, headers=self._headers(), body=body)

    @contextmanager
    def stream(self, call: Call) -> Generator[Iterator[bytes], None]:
        """The agent's answer in pieces."""
        with ExitStack() as opened:
            try:
                pieces = opened.enter_context(self._stream(call, self._headers()))
            except AuthenticationFailed as failure:
                if failure.code != _EXPIRED:
                    raise
                self.refresh_token()
                pieces = opened.enter_context(self._stream(call, self._headers()))
            yield pieces

    def websocket(self, path: str, *, timeout: float) -> "Socket":
        """An open WebSocket; `timeout` seconds for its handshake.

        Raises:
            CoveError: it was refused, or nobody answered.
        """
        # Loaded at the first one: most programs never open a WebSocket.
        from cove.sdk._sync.websocket import Socket

        seconds, wire = check_seconds("timeout", timeout), self.control.wire
        try:
            return Socket.open(wire, self.url, path, headers=self._headers(), timeout=seconds)
        except AuthenticationFailed as failure:
            if failure.code != _EXPIRED:
                raise
        self.refresh_token()
        return Socket.open(wire, self.url, path, headers=self._headers(), timeout=seconds)

    def token(self) -> str:
        """A token that is valid for a minute at least, as far as this machine's clock can tell."""
        if time.time() > self._expires - _TOKEN_MARGIN_SECONDS:
            self.refresh_token()
        return self._token

    def refresh_token(self) -> AgentToken:
        """Get a new token and use it from now on."""
        token = self.control.refresh_token(self.sandbox_id)
        self._keep(token)
        return token

    def _stream(self, call: Call, headers: Headers) -> AbstractContextManager[Iterator[bytes]]:
        return self.control.wire.stream(self.url, call, headers=headers)

    def _headers(self) -> Headers:
        if not self._token:
            self.refresh_token()
        return (("Authorization", f"Bearer {self._token}"),)

    def _keep(self, token: AgentToken) -> None:
        self._token = token.auth_token
        self._expires = token.token_expires_at.timestamp()
