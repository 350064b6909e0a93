"""What a fork server or a new sandbox sends is bounded, checked, and leaves no descriptors behind."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from cove.drivers.namespace.forkserver.protocol import MAX_PACKET
from cove.drivers.namespace.warm import WarmProcess, close_all, receive_packet
from cove.models.errors import CoveError
from cove.models.templates import TemplateManifest

pytestmark = pytest.mark.anyio


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def descriptors_open() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("packet", [b"\xff{", b"[]", b"null", b"1", b"[" * MAX_PACKET, b"{" * 5], ids=range(6))
async def test_what_is_not_a_message_is_refused(channel: tuple[socket.socket, socket.socket], packet: bytes) -> None:
    ours, theirs = channel
    before = descriptors_open()
    socket.send_fds(theirs, [packet], [0, 0, 0])
    async with asyncio.timeout(10):
        with pytest.raises(CoveError, match="not a message"):
            await receive_packet(ours)
    assert descriptors_open() == before


async def test_a_message_comes_with_its_descriptors(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    before = descriptors_open()
    reading = asyncio.ensure_future(receive_packet(ours))
    await asyncio.sleep(0)
    socket.send_fds(theirs, [b'{"spawned": "x"}'], [0])
    async with asyncio.timeout(10):
        message, descriptors = await reading
    assert (message, len(descriptors)) == ({"spawned": "x"}, 1)
    close_all(descriptors)
    theirs.close()
    async with asyncio.timeout(10):
        assert await receive_packet(ours) == (None, [])
    assert descriptors_open() == before - 1


async def test_a_fork_server_that_sends_too_much_is_not_used_again(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    warm = WarmProcess(TemplateManifest.model_construct(name="base"), ours, ())
    first, second = socket.socketpair()
    with first, second:
        before = descriptors_open()
        socket.send_fds(theirs, [b'{"spawned": "x"}'], [0, 0])
        async with asyncio.timeout(10):
            with pytest.raises(CoveError, match="more than was asked for"):
                await warm.spawn("x", first, second)
        assert descriptors_open() == before
    assert not warm.usable
