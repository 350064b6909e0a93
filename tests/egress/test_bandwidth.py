"""A rate for what a sandbox sends and gets: kept, shared fairly, changed and lifted at any time."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from cove.egress.bandwidth import BYTES_PER_MEGABIT, Bandwidth
from cove.egress.carrying import Pipes, carry, carry_some

pytestmark = pytest.mark.anyio

_SECONDS = 30.0
_MBPS = 8
_RATE = _MBPS * BYTES_PER_MEGABIT
_BURST = 0.1


class Carried:
    """A connection that is carried: `program` and `server` are its far ends."""

    def __init__(self, bandwidth: Bandwidth, pipes: Pipes) -> None:
        self.program, inside = _pair()
        self.server, outside = _pair()
        self.sent = self.received = 0
        self._inside, self._outside = inside, outside
        self._task = asyncio.create_task(
            carry(inside, outside, pipes, bandwidth=bandwidth, sent=self._on_sent, received=self._on_received)
        )

    async def upload(self, count: int) -> None:
        """From the program to the server, to the end."""
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(self.program, bytes(count)))
        try:
            left = count
            while left:
                left -= len(await loop.sock_recv(self.server, 65536))
            await sending
        finally:
            sending.cancel()

    async def close(self) -> None:
        """Cut it."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._task
        for sock in (self.program, self.server, self._inside, self._outside):
            sock.close()

    def _on_sent(self, count: int) -> None:
        self.sent += count

    def _on_received(self, count: int) -> None:
        self.received += count


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    return ours, theirs


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()


@pytest.fixture
async def bandwidth() -> Bandwidth:
    bandwidth = Bandwidth()
    bandwidth.limit(_MBPS)
    return bandwidth


@pytest.fixture
async def two(bandwidth: Bandwidth, pipes: Pipes) -> AsyncIterator[tuple[Carried, Carried]]:
    both = Carried(bandwidth, pipes), Carried(bandwidth, pipes)
    async with asyncio.timeout(_SECONDS):
        yield both
        for one in both:
            await one.close()


async def test_rate_is_kept_and_shared(two: tuple[Carried, Carried]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    each = 300_000
    uploads = [asyncio.create_task(one.upload(each)) for one in two]
    await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
    assert min(one.sent for one in two) > 0.8 * each, "neither has more than its share"
    await asyncio.gather(*uploads)
    assert loop.time() - began > (2 * each - 2 * _BURST * _RATE) / _RATE


async def test_short_one_does_not_wait_for_the_end_of_a_long_one(
    bandwidth: Bandwidth, two: tuple[Carried, Carried]
) -> None:
    bulk, short = two
    uploading = asyncio.create_task(bulk.upload(2_000_000))
    while bulk.sent < 2 * _BURST * _RATE:
        await asyncio.sleep(0)
    before = bulk.sent
    await short.upload(1)
    assert bulk.sent - before <= 3 * bandwidth.sent.piece
    uploading.cancel()


async def test_what_waits_goes_on_when_the_rate_is_lifted(bandwidth: Bandwidth, two: tuple[Carried, Carried]) -> None:
    bandwidth.limit(1)
    uploads = [asyncio.create_task(one.upload(20_000_000)) for one in two]
    while min(one.sent for one in two) < 8192:
        await asyncio.sleep(0)
    bandwidth.limit(None)
    await asyncio.gather(*uploads)  # at that rate it would take minutes


async def test_directions_have_a_budget_each(two: tuple[Carried, Carried], bandwidth: Bandwidth) -> None:
    bandwidth.sent.spend(1000 * _RATE)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(two[0].server, b"x")
    assert await loop.sock_recv(two[0].program, 1) == b"x"


async def test_those_who_pace_themselves_stand_in_the_same_line(bandwidth: Bandwidth) -> None:
    budget = bandwidth.sent
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(_SECONDS):
        await asyncio.gather(*(budget.pace(10_000) for _ in range(40)))
    assert loop.time() - began > (400_000 - 2 * _BURST * _RATE) / _RATE
    budget.spend(1000 * _RATE)
    waiting = asyncio.create_task(budget.pace(1))
    await asyncio.sleep(0)
    waiting.cancel()
    bandwidth.limit(None)
    async with asyncio.timeout(_SECONDS):
        await budget.pace(10**9)


async def test_some_bytes_of_a_connection(bandwidth: Bandwidth, pipes: Pipes) -> None:
    (server, outside), (program, inside) = _pair(), _pair()
    loop = asyncio.get_running_loop()
    with server, outside, program, inside:
        for size, most in ((100_000, 60_000), (50_000, 50_001)):
            counted: list[int] = []
            came = asyncio.create_task(
                carry_some(outside, inside, pipes, most=most, budget=bandwidth.received, count=counted.append)
            )
            sending = asyncio.create_task(loop.sock_sendall(server, bytes(size)))
            left = min(size, most)
            async with asyncio.timeout(_SECONDS):
                while left:
                    left -= len(await loop.sock_recv(program, 65536))
                if size < most:
                    server.shutdown(socket.SHUT_WR)
                assert await came == sum(counted) == min(size, most)
                while size > most:
                    size -= len(await loop.sock_recv(outside, size - most))
                await sending
