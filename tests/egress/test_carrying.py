"""Whatever the two ends of a connection do, what one has sent arrives at the other, and nothing is left."""

import asyncio
import contextlib
import os
import random
import socket
import struct
import termios
from dataclasses import dataclass, field
from fcntl import ioctl

from hypothesis import given, settings
from hypothesis import strategies as st

from cove.egress.bandwidth import Bandwidth
from cove.egress.carrying import Pipes, carry

SECONDS = 60.0
_DATA = random.Random(1).randbytes(500_000)
_HALF_CLOSE, _RESET, _PAUSE, _HEAR_ALL = "half-close", "reset", "pause", "hear all"
_SMALL_PIECES = 100

Script = list[int | str]


@dataclass(slots=True)
class End:
    """A far end, which writes as its script says, and reads meanwhile.

    Attributes:
        script: numbers of bytes to write, pauses, waits for the other's end, and how it ends.
        piece: it reads so many bytes at a time at first; 0: it reads nothing before its script has ended.
        broken: it was reset, by itself or by the other side.
    """

    sock: socket.socket
    script: Script
    piece: int
    written: bytearray = field(default_factory=bytearray)
    read: bytearray = field(default_factory=bytearray)
    broken: bool = False

    async def run(self) -> None:
        """To its end."""
        may_read = asyncio.Event()
        if self.piece:
            may_read.set()
        reading = asyncio.create_task(self._read(may_read))
        try:
            for step in self.script:
                if step == _RESET:
                    await self._reset(reading)
                elif step == _HEAR_ALL:
                    await asyncio.wait([reading])
                else:
                    await self._step(step)
        except OSError:
            self.broken = True
        may_read.set()
        with contextlib.suppress(asyncio.CancelledError):
            await reading

    async def _step(self, step: int | str) -> None:
        if isinstance(step, int):
            start = len(self.written) % 200_000
            await self._write(memoryview(_DATA)[start : start + step])
        elif step == _PAUSE:
            for _ in range(20):
                await asyncio.sleep(0)
        else:
            self.sock.shutdown(socket.SHUT_WR)

    async def _write(self, data: memoryview) -> None:
        while data:
            try:
                now = self.sock.send(data)
            except BlockingIOError:
                await asyncio.sleep(0)
            else:
                self.written += data[:now]
                data = data[now:]

    async def _read(self, may_read: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        await may_read.wait()
        pieces = 0
        try:
            while more := await loop.sock_recv(
                self.sock, self.piece if self.piece > 0 and pieces < _SMALL_PIECES else 65536
            ):
                self.read += more
                pieces += 1
        except OSError:
            self.broken = True

    async def _reset(self, reading: asyncio.Task[None]) -> None:
        reading.cancel()
        await asyncio.wait([reading])
        self.broken = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def _script(steps: Script, end: Script) -> Script:
    return [*steps, *end]


_STEPS = st.lists(st.one_of(st.integers(1, 100), st.integers(1, 200_000), st.just(_PAUSE)), max_size=6)
_INSIDE = st.builds(_script, _STEPS, st.sampled_from([[_HALF_CLOSE], [_HALF_CLOSE], [_RESET]]))
_OUTSIDE = st.builds(
    _script,
    _STEPS,
    st.sampled_from([[_HALF_CLOSE], [_HEAR_ALL, _HALF_CLOSE], [_HEAR_ALL, 5000, _HALF_CLOSE], [_RESET]]),
)
_BUFFERS = st.sampled_from([0, 32768])
_LIMITS = st.lists(st.sampled_from([8, 80, None]), max_size=3)


@given(
    st.tuples(_INSIDE, st.sampled_from([0, 1, 1000, 65536]), _BUFFERS),
    st.tuples(_OUTSIDE, st.sampled_from([1, 1000, 65536]), _BUFFERS),
    _LIMITS,
)
@settings(max_examples=100)
def test_whatever_the_ends_do(
    inside: tuple[Script, int, int], outside: tuple[Script, int, int], limits: list[int | None]
) -> None:
    before = _open_descriptors()
    program, server, counted = asyncio.run(_carried(inside, outside, limits))
    assert _open_descriptors() == before
    if _RESET in (*program.script, *server.script):
        assert program.written.startswith(server.read)
        assert server.written.startswith(program.read)
    else:
        assert not program.broken
        assert not server.broken
        assert program.written == server.read
        assert server.written == program.read
        assert counted == (len(program.written), len(server.written))


async def _carried(
    inside: tuple[Script, int, int], outside: tuple[Script, int, int], limits: list[int | None]
) -> tuple[End, End, tuple[int, int]]:
    counted = [0, 0]

    def sent(count: int) -> None:
        counted[0] += count

    def received(count: int) -> None:
        counted[1] += count

    pipes, bandwidth = Pipes(), Bandwidth()
    with contextlib.ExitStack() as stack:
        stack.callback(pipes.close)
        (far, near), (server_far, server_near) = _connected(inside[2]), _connected(outside[2])
        for sock in (far, near, server_far, server_near):
            stack.callback(sock.close)
        program, server = End(far, *inside[:2]), End(server_far, *outside[:2])

        async def limit() -> None:
            for megabits in limits:
                bandwidth.limit(megabits)
                for _ in range(50):
                    await asyncio.sleep(0)
            bandwidth.limit(None)

        async def carrying() -> None:
            # As in the egress program: both near ends are closed when it is over.
            with near, server_near, contextlib.suppress(OSError):
                await carry(near, server_near, pipes, bandwidth=bandwidth, sent=sent, received=received)

        async with asyncio.timeout(SECONDS):
            await asyncio.gather(carrying(), program.run(), server.run(), limit())
        assert all(_waiting_in(pipe) == 0 for pipe in _idle(pipes))
    return program, server, (counted[0], counted[1])


def _connected(buffer: int) -> tuple[socket.socket, socket.socket]:
    """The two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    for sock in (far, near):
        sock.setblocking(False)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    return far, near


def _idle(pipes: Pipes) -> list[tuple[int, int]]:
    """Takes those that wait to be borrowed, and gives them back."""
    fresh_from = len(os.listdir("/proc/self/fd"))
    taken: list[tuple[int, int]] = []
    while len(os.listdir("/proc/self/fd")) == fresh_from:
        taken.append(pipes.borrow())
    for ends in taken:
        pipes.give_back(ends, is_empty=True)
    return taken


def _waiting_in(pipe: tuple[int, int]) -> int:
    return struct.unpack("i", ioctl(pipe[0], termios.FIONREAD, bytes(4)))[0]


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
