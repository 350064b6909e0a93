"""Opening and reading WebSockets with the `websockets` library, which is loaded at the first one.

`cove.sdk._async.dialing` has the same names. Both are written by hand.
"""

import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cove.sdk._endpoint import USER_AGENT, tls_context
from cove.sdk._websockets import CLOSE_SECONDS, MAX_QUEUED_FRAMES, PING_SECONDS, Dial

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection as Connection


def dial(wanted: Dial) -> "Connection":
    """A connection whose handshake is done. Proxies are not used, redirects not followed.

    Raises:
        OSError, TimeoutError, websockets.exceptions.WebSocketException: there is none.
    """
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    secure: ssl.SSLContext | None = tls_context(secure=True) if wanted.url.startswith("wss:") else None
    opened = _socket(wanted)
    try:
        connection = connect(
            wanted.url,
            sock=opened,
            ssl=secure,
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
        )
    except BaseException as problem:
        opened.close()
        # A redirect cannot be followed on a socket that was given: the refusal itself says more.
        if isinstance(problem.__cause__, InvalidStatus):
            raise problem.__cause__ from None
        raise
    return connection.__enter__()


def next_message(connection: "Connection", timeout: float | None) -> str | bytes:
    """The next frame.

    Raises:
        TimeoutError: none came within `timeout` seconds; None waits for as long as the connection lives.
        websockets.exceptions.ConnectionClosed: none will come.
    """
    return connection.recv(timeout)


def _socket(wanted: Dial) -> socket.socket:
    if wanted.socket_path is None:
        parts = urlsplit(wanted.url)
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        opened = socket.create_connection((parts.hostname or "", port), wanted.timeout)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened
    opened = socket.socket(socket.AF_UNIX)
    try:
        opened.settimeout(wanted.timeout)
        opened.connect(wanted.socket_path)
    except BaseException:
        opened.close()
        raise
    return opened
