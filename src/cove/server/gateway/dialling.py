"""Connections to programs inside a sandbox.

Programs listen in the sandbox's own network namespace. `AgentDialer` has the agent connect there and hand over the
connected socket as a descriptor (SCM_RIGHTS, unix(7)): after that the gateway talks to the program directly. An agent
that shares no kernel with the gateway cannot do that: it carries the bytes on the connection that it was asked on.

The agent is not trusted, and neither is what it hands over. A descriptor may be of anything, and the last one to drop a
file does the kernel's work of releasing it, which may take long: descriptors are received, checked and dropped on
threads of their own, never on the event loop.
"""

import asyncio
import contextlib
import os
import re
import socket
import stat
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

from cove.linux.readiness import readable
from cove.models.errors import error

DIAL_SECONDS: Final = 2.0
"""For the whole way to a connection; the agent gives up before that."""

_BACKLOG_RETRY_SECONDS: Final = 0.005
_THREADS: Final = 2
_CARRYING: Final = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: cove-stream\r\n\r\n"
"""The whole answer of an agent that carries the bytes itself."""

_INT: Final = struct.calcsize("i")
# Room for two: one too many is seen, and the kernel drops further ones.
_ANCILLARY: Final = socket.CMSG_SPACE(2 * _INT)
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_NO_LINGER: Final = struct.pack("ii", 0, 0)


class PortDialer(Protocol):
    """Connects to ports of sandboxes."""

    async def dial(self, agent: str, port: int) -> socket.socket:
        """A connected, non-blocking stream socket to what listens on `port` in the sandbox whose agent listens on the
        unix socket `agent`.

        Its file description may be shared with the sandbox: it must be used through `SharedSocketTransport` only.

        Raises:
            CoveError: PORT_NOT_OPEN.
            OSError: the agent cannot be reached, or its answer makes no sense; TimeoutError: not within `DIAL_SECONDS`.
        """
        ...

    def close(self) -> None:
        """Releases what the dialer holds."""
        ...


class AgentDialer:
    """Implements `PortDialer`: for agents that pass descriptors, and for those that cannot."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dial")

    async def dial(self, agent: str, port: int) -> socket.socket:
        """See `PortDialer`."""
        loop = asyncio.get_running_loop()
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await connect_unix(channel, agent)
                await loop.sock_sendall(channel, _question(port))
                await readable(channel.fileno())
        except BaseException:
            self._threads.submit(channel.close)
            raise
        answer = self._threads.submit(_received, channel, port)
        try:
            return await asyncio.shield(asyncio.wrap_future(answer))
        except asyncio.CancelledError:
            answer.add_done_callback(_dropped)
            raise

    def close(self) -> None:
        """See `PortDialer`."""
        self._threads.shutdown(wait=False)


async def connect_unix(sock: socket.socket, path: str) -> None:
    """Connects a non-blocking unix socket.

    Raises:
        OSError: nobody listens there.
    """
    # unix(7): a full backlog answers EAGAIN at once and nothing tells when it has room again.
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(_BACKLOG_RETRY_SECONDS)
        else:
            return


def _question(port: int) -> bytes:
    fields = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: cove-socket\r\n"
    return b"GET /ports/%d/socket HTTP/1.1\r\n%b\r\n" % (port, fields)


def _received(channel: socket.socket, port: int) -> socket.socket:
    """The connection in the agent's answer, which an honest agent sends in one piece; or the very one it came on."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(channel)
        # Not a byte more: what follows is the program's.
        data, ancillary, flags, _ = channel.recvmsg(len(_CARRYING), _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        descriptors = [
            descriptor
            for level, kind, content in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            for (descriptor,) in struct.iter_unpack("i", content[: len(content) // _INT * _INT])
        ]
        status = _STATUS.match(data)
        if status and status[1] == b"101" and len(descriptors) == 1 and not flags & socket.MSG_CTRUNC:
            return _checked(descriptors[0])
        for descriptor in descriptors:
            os.close(descriptor)
        if data == _CARRYING and not descriptors:
            stack.pop_all()
            return channel
        if status and status[1] == b"502" and not descriptors:
            raise error("PORT_NOT_OPEN", f"Nothing in the sandbox accepts connections on port {port}.", port=port)
    raise ConnectionError("The agent handed over no connection.")


def _checked(descriptor: int) -> socket.socket:
    """The descriptor as a socket, if it is one that is connected by TCP.

    Raises:
        ConnectionError: it is anything else; it has been closed.
    """
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise ConnectionError("The agent handed over something else than a socket.")
        sock = socket.socket(fileno=descriptor)  # asks for SO_DOMAIN, SO_TYPE and SO_PROTOCOL
    except OSError:
        os.close(descriptor)
        raise
    try:
        kind = (sock.type, sock.proto)
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or kind != (socket.SOCK_STREAM, socket.IPPROTO_TCP):
            raise ConnectionError("The agent handed over a socket that is not TCP.")
        sock.getpeername()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


def _dropped(answer: Future[socket.socket]) -> None:
    """Closes a connection that nobody waits for any more."""
    if answer.exception() is None:
        answer.result().close()
