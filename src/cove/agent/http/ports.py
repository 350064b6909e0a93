"""Connections to programs of the sandbox, handed to the host as descriptors.

The host asks `GET /ports/{port}/socket` with `Upgrade: cove-socket`. Programs listen in the sandbox's own network
namespace, where only the agent can connect to them: it does, and passes the connected socket with `101 Switching
Protocols` as SCM_RIGHTS (unix(7)). From then on the host talks to the program, and the agent is not on the path.

Behind a kernel of its own a sandbox has no descriptors for the host: then the answer names `cove-stream`, and this very
connection carries the bytes to the program and back from there on.
"""

import asyncio
import re
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from typing import cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from cove.agent.http.errors import error_body, status_of
from cove.agent.http.relaying import RelayEnd, relay
from cove.models.agent import AgentBoot
from cove.models.errors import CoveError, error
from cove.models.isolation import Isolation

UPGRADE = b"cove-socket"
CONNECT_SECONDS = 1.5
"""Below the time that the host waits for the whole answer."""

_PATH = re.compile(rb"/ports/([1-9][0-9]{0,4})/socket")
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: cove-socket\r\n\r\n"
_CARRYING = _SWITCHING.replace(UPGRADE, b"cove-stream")


def shares_kernel(boot: AgentBoot) -> bool:
    """Whether the host has the kernel of this sandbox, so that descriptors can be passed."""
    return boot.isolation not in (Isolation.GVISOR, Isolation.MICROVM)


async def hand_over(transport: asyncio.Transport, target: bytes) -> None:
    """Answer one request for a connection to the port that `target` names, and close."""
    try:
        with await _connected(_port_of(target)) as sock:
            _pass(transport, sock)
    except CoveError as failure:
        transport.write(_refusal(failure))
    except OSError:  # the asker has gone
        transport.abort()
    transport.close()


async def carry(transport: asyncio.Transport, target: bytes, forget: Callable[[RelayEnd], None]) -> RelayEnd | None:
    """The same where no descriptor can be passed: carry the bytes until either side ends.

    Returns:
        The asker's end; None when there is no connection and it was told so.
    """
    try:
        sock = await _connected(_port_of(target))
    except CoveError as failure:
        transport.write(_refusal(failure))
        transport.close()
        return None
    transport.write(_CARRYING)
    return await relay(transport, sock, forget)


def _port_of(target: bytes) -> int:
    match = _PATH.fullmatch(target)
    if match is None or int(match[1]) > 65535:
        raise error("INVALID_REQUEST", "The path is /ports/PORT/socket.")
    return int(match[1])


async def _connected(port: int) -> socket.socket:
    """A connection to whatever listens on `port` of the loopback addresses, IPv4 first.

    Raises:
        CoveError: PORT_NOT_OPEN when nothing does, or it does not accept in time.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            for family, address in _LOOPBACKS:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                try:
                    await loop.sock_connect(sock, (address, port))
                except OSError:
                    sock.close()
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
    except TimeoutError:
        raise error("PORT_NOT_OPEN", f"What listens on port {port} does not accept connections.") from None
    raise error("PORT_NOT_OPEN", f"Nothing listens on port {port}.")


def _pass(transport: asyncio.Transport, sock: socket.socket) -> None:
    """Send the answer with the descriptor. It is the first and only thing sent, so there is room for it.

    Raises:
        OSError: the connection is gone.
    """
    own = cast(TransportSocket, transport.get_extra_info("socket"))
    with own.dup() as channel:
        socket.send_fds(channel, [_SWITCHING], [sock.fileno()])


def _refusal(failure: CoveError) -> bytes:
    body = error_body(failure, request_id="", path="")
    head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    return STATUS_LINE[status_of(failure)] + head + body
