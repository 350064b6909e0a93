"""What both WebSocket clients share: limits, addresses, frames, and errors."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cove.models.errors import CoveError, error
from cove.models.frames import MAX_FRAME_BYTES
from cove.sdk._failures import failure_of_answer, parse_object

if TYPE_CHECKING:
    from websockets.exceptions import ConnectionClosed

CONNECT_SECONDS = 30.0
PING_SECONDS = 20.0
"""Between two pings, and for the answer to one: a dead peer is noticed after twice that."""

CLOSE_SECONDS = 5.0
MAX_QUEUED_FRAMES = 4

_NORMAL = (1000, 1001)
_TOO_BIG = 1009
_TAKEN_OVER = 4001


@dataclass(frozen=True)
class Dial:
    """A WebSocket to open.

    Attributes:
        socket_path: a unix socket that carries it, whatever host the URL names.
        headers: of the handshake, credentials among them.
        timeout: seconds for the handshake.
    """

    url: str
    socket_path: str | None
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    timeout: float
    max_frame_bytes: int = MAX_FRAME_BYTES


def websocket_url(origin: str, path: str) -> str:
    """`ws(s)://...` for an `http(s)://...` address."""
    scheme, separator, rest = origin.partition("://")
    if scheme not in ("http", "https") or not separator:
        raise error("INVALID_REQUEST", f"{origin[:200]!r} is not an address that a WebSocket can be opened at.")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}{path}"


def no_sockets() -> CoveError:
    """The error where the caller's transport replaces sockets."""
    return error(
        "UNSUPPORTED",
        "A WebSocket cannot go through a transport that was given to the client.",
        remedy="Use an address (base_url) instead of `transport`.",
    )


def failure_of_handshake(problem: Exception, *, url: str) -> CoveError:
    """The exception for a WebSocket that was not opened."""
    from websockets.exceptions import InvalidStatus

    if isinstance(problem, InvalidStatus):
        answer = problem.response
        # 2xx is no success here: whoever answered does not speak WebSocket.
        status = answer.status_code if answer.status_code >= 300 else 502
        return failure_of_answer(status, bytes(answer.body or b""), url=url)
    cause = str(problem) or type(problem).__name__
    if isinstance(problem, TimeoutError):
        return error("TIMEOUT", f"{url} was not answered in time ({cause}).", sent=True)
    return error(
        "NETWORK_ERROR",
        f"No WebSocket can be opened at {url} ({cause}).",
        remedy="Does the sandbox's server run, and is this its address?",
        sent=False,
    )


def failure_of_close(closed: "ConnectionClosed", *, url: str, max_frame_bytes: int) -> CoveError | None:
    """The exception for a connection that has ended; None when it ended as it should."""
    received, sent = closed.rcvd, closed.sent
    if sent is not None and sent.code == _TOO_BIG and not closed.rcvd_then_sent:
        return error("REQUEST_TOO_LARGE", f"{url} sent a frame of more than {max_frame_bytes} bytes.")
    if received is None:
        return error("NETWORK_ERROR", f"The connection to {url} was lost.", sent=True)
    if received.code in _NORMAL:
        return None
    said = f" ({received.code}: {received.reason})" if received.reason else f" ({received.code})"
    if received.code == _TAKEN_OVER:
        return error("CONFLICT", f"Another client has taken over {url}{said}.")
    if received.code == _TOO_BIG:
        return error("REQUEST_TOO_LARGE", f"{url} refused a frame because of its size{said}.")
    return error("NETWORK_ERROR", f"{url} ended the connection{said}.", sent=True)


def has_ended(url: str) -> CoveError:
    """The error for what cannot be sent any more."""
    return error("CONFLICT", f"The connection to {url} has ended.")


def frame_of(message: str | bytes) -> dict[str, Any]:
    """The JSON object in a frame.

    Raises:
        PlatformFailure: it holds something else.
    """
    return parse_object(message.encode() if isinstance(message, str) else message)
