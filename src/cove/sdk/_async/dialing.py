"""Opening and reading WebSockets with the `websockets` library, which is loaded at the first one.

`cove.sdk._sync.dialing` has the same names. Both are written by hand.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from cove.sdk._endpoint import USER_AGENT, tls_context
from cove.sdk._websockets import CLOSE_SECONDS, MAX_QUEUED_FRAMES, PING_SECONDS, Dial

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection as Connection


async def dial(wanted: Dial) -> "Connection":
    """A connection whose handshake is done. Proxies are not used, redirects not followed.

    Raises:
        OSError, TimeoutError, websockets.exceptions.WebSocketException: there is none.
    """
    from websockets.asyncio.client import connect

    class Connect(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    options: dict[str, Any] = {} if wanted.socket_path is None else {"unix": True, "path": wanted.socket_path}
    if wanted.url.startswith("wss:"):
        options["ssl"] = tls_context(secure=True)
    return await Connect(
        wanted.url,
        additional_headers=wanted.headers,
        user_agent_header=USER_AGENT,
        compression=None,
        proxy=None,
        open_timeout=wanted.timeout,
        ping_interval=PING_SECONDS,
        ping_timeout=PING_SECONDS,
        close_timeout=CLOSE_SECONDS,
        max_size=wanted.max_frame_bytes,
        max_queue=MAX_QUEUED_FRAMES,
        **options,
    )


async def next_message(connection: "Connection", timeout: float | None) -> str | bytes:
    """The next frame.

    Raises:
        TimeoutError: none came within `timeout` seconds; None waits for as long as the connection lives.
        websockets.exceptions.ConnectionClosed: none will come.
    """
    async with asyncio.timeout(timeout):
        return await connection.recv()
