"""A sandbox that ends while its agent owes an answer: the client hears of it, and what ended it."""

import asyncio
import json
import time

import pytest
from tests.server.gateway.conftest import SANDBOX_A, Start

from cove.core.directory import LiveDirectory
from cove.models.hosts import HostState, SandboxRecord
from cove.models.isolation import Isolation
from cove.models.limits import Limits
from cove.models.previews import PreviewTerms

pytestmark = pytest.mark.anyio

ASKED = (
    f"POST /sandboxes/{SANDBOX_A}/execute HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ok.{SANDBOX_A}.sig\r\n"
)
REQUEST = f"{ASKED}Content-Length: 2\r\n\r\n{{}}".encode()
RECORD = SandboxRecord(
    sandbox_id=SANDBOX_A,
    template="base",
    isolation=Isolation.GVISOR,
    limits=Limits(),
    state=HostState.RUNNING,
    socket_path="/nowhere",
    pid=1,
    pid_started=1,
    created=0.0,
)


@pytest.mark.parametrize("limit", ["memory 512 MiB", ""])
async def test_the_end_is_told_though_its_news_come_late(start: Start, limit: str) -> None:
    live = LiveDirectory()
    live.add(RECORD, PreviewTerms())
    gw = await start(ends=live)
    path = gw.agent(SANDBOX_A)

    def end() -> None:
        if limit:
            live.note_limit(SANDBOX_A, limit)
        del gw.directory[SANDBOX_A]
        live.remove(SANDBOX_A)

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        asyncio.get_running_loop().call_later(0.05, end)

    await gw.raw(path, die)
    reply = await gw.ask(REQUEST, method="POST")
    said = json.loads(reply.body)
    if limit:
        assert (reply.status, said["code"], said["details"]) == (410, "SANDBOX_DIED", {"reason": limit})
        assert limit in said["message"]
    else:
        assert (reply.status, said["code"], said["details"]) == (404, "SANDBOX_NOT_FOUND", {})


async def test_an_agent_that_only_breaks_off_is_told_after_a_bounded_wait(start: Start) -> None:
    live = LiveDirectory()
    live.add(RECORD, PreviewTerms())
    gw = await start(ends=live)

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")

    await gw.raw(gw.agent(SANDBOX_A), break_off)
    client = await gw.connect()
    began = time.monotonic()
    await client.send(REQUEST + REQUEST)  # the second waits for its turn
    for _ in range(2):
        reply = await client.reply(method="POST")
        assert (reply.status, json.loads(reply.body)["code"]) == (502, "AGENT_UNREACHABLE")
    assert 2.0 <= time.monotonic() - began < 6.0
