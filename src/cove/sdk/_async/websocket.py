"""One WebSocket to a sandbox's agent: frames as JSON objects, failures as `CoveError`."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from cove.models.errors import CoveError
from cove.sdk._async.dialing import dial, next_message
from cove.sdk._async.wire import AsyncWire, Headers
from cove.sdk._websockets import (
    Dial,
    failure_of_close,
    failure_of_handshake,
    frame_of,
    has_ended,
    no_sockets,
    websocket_url,
)

if TYPE_CHECKING:
    from websockets.exceptions import ConnectionClosed

    from cove.sdk._async.dialing import Connection


class AsyncSocket:
    """An open connection. As a context manager it is closed at the end of the block."""

    def __init__(self, connection: "Connection", dialed: Dial) -> None:
        self._connection = connection
        self._dialed = dialed

    @classmethod
    async def open(cls, wire: AsyncWire, origin: str, path: str, *, headers: Headers, timeout: float) -> Self:
        """A connection to `path` below `origin`, made like those of `wire`.

        Raises:
            CoveError: the handshake was refused, or nobody answered.
        """
        from websockets.exceptions import WebSocketException

        if wire.has_given_transport:
            raise no_sockets()
        wanted = Dial(websocket_url(origin, path), wire.endpoint.socket_path, headers, timeout)
        try:
            return cls(await dial(wanted), wanted)
        except (OSError, ValueError, WebSocketException) as problem:
            raise failure_of_handshake(problem, url=wanted.url) from problem

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def send(self, frame: BaseModel) -> None:
        """Send one frame.

        Raises:
            CoveError: the connection has ended.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(frame.model_dump_json(exclude_none=True))
        except ConnectionClosed as closed:
            raise self._failure(closed) or has_ended(self._dialed.url) from closed

    async def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next frame; None when the other side has closed the connection as it should.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            CoveError: the connection was lost, or what came is not a frame.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            return frame_of(await next_message(self._connection, timeout))
        except ConnectionClosed as closed:
            failure = self._failure(closed)
            if failure is not None:
                raise failure from closed
        return None

    async def aclose(self) -> None:
        """Say goodbye, for a few seconds at most."""
        await self._connection.close()

    def _failure(self, closed: "ConnectionClosed") -> CoveError | None:
        return failure_of_close(closed, url=self._dialed.url, max_frame_bytes=self._dialed.max_frame_bytes)
