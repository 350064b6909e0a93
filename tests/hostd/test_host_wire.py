"""The host behind its unix socket: every call, errors, many clients, hostile peers, restarts."""

import asyncio
import json
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.hostd.conftest import STEPS, Setting, spec

from cove.hostd import wire
from cove.hostd.client import RemoteHost
from cove.hostd.daemon import Daemon
from cove.models.errors import CoveError, LimitExceeded, NotFound, error
from cove.models.hosts import HostState, SandboxRecord

pytestmark = pytest.mark.anyio

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "hostd.sock"


@pytest.fixture
async def remote(path: Path) -> AsyncIterator[RemoteHost]:
    host = RemoteHost(path, call_seconds=10)
    yield host
    await host.close()


@pytest.fixture
async def daemon(setting: Setting, path: Path) -> AsyncIterator[Daemon]:
    served = Daemon(await setting.host())
    await served.listen(path)
    yield served
    await served.close()
    assert not path.exists()


@asynccontextmanager
async def peer_at(path: Path, behave: Peer) -> AsyncGenerator[None]:
    """Something else than a daemon."""
    server = await asyncio.start_unix_server(behave, path)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def tell(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Send raw lines on one connection, read as many answers."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        async with asyncio.timeout(10):
            writer.writelines(lines)
            return [json.loads(await reader.readline()) for _ in lines]
    finally:
        writer.close()


@pytest.mark.usefixtures("daemon")
async def test_every_call_arrives(remote: RemoteHost, setting: Setting) -> None:
    asked = spec(env_vars={"A": "b"}, deadline=4e9, pooled=True)
    record = await remote.create(asked)
    assert isinstance(record, SandboxRecord)
    assert await remote.list() == (record,)
    assert setting.driver.sandboxes[asked.sandbox_id].env_vars == {"A": "b"}
    claimed = await remote.claim(asked.sandbox_id, 5e9)
    assert (claimed.pooled, claimed.deadline) == (False, 5e9)
    await remote.set_deadline(asked.sandbox_id, None)
    await remote.pause(asked.sandbox_id)
    assert [(seen.state, seen.deadline) for seen in await remote.list()] == [(HostState.PAUSED, None)]
    await remote.resume(asked.sandbox_id)
    assert (await remote.usage(asked.sandbox_id)).pids == 1
    await remote.stop(asked.sandbox_id, {"C": "d"})
    assert [(seen.state, seen.env_vars) for seen in await remote.list()] == [(HostState.STOPPED, {})]
    assert (await remote.start(asked.sandbox_id)).state is HostState.RUNNING
    assert setting.driver.sandboxes[asked.sandbox_id].env_vars == {"C": "d"}
    changes = await remote.changes("", 0.0)
    assert (await remote.changes(changes.cursor, 0.01)).complete
    assert (await remote.capacity()).sandboxes == 1
    assert [report.available for report in await remote.check()] == [True]
    assert [template.preload for template in await remote.templates()] == [("json",)]
    await remote.warm("base")
    assert setting.driver.warmed == ["base"]
    assert [step async for step in remote.build_template("base")] == list(STEPS)
    await remote.destroy(asked.sandbox_id)
    assert await remote.list() == ()


async def test_every_call_of_the_wire_is_one_of_the_host(setting: Setting) -> None:
    host = await setting.host()
    for call in wire.CALLS:
        assert callable(getattr(host, call))
        assert callable(getattr(RemoteHost, call))


@pytest.mark.usefixtures("daemon")
async def test_errors_keep_all_they_say(remote: RemoteHost, setting: Setting) -> None:
    setting.driver.failures.append(error("RESOURCE_LIMIT_EXCEEDED", "Too much.", remedy="Ask less.", path="/x", n=[1]))
    with pytest.raises(LimitExceeded) as caught:
        await remote.create(spec())
    assert (caught.value.code, caught.value.message) == ("RESOURCE_LIMIT_EXCEEDED", "Too much.")
    assert (caught.value.remedy, caught.value.details) == ("Ask less.", {"path": "/x", "n": [1]})
    with pytest.raises(NotFound):
        await remote.create(spec(template="nothing"))
    with pytest.raises(CoveError) as failed:
        async for _ in remote.build_template("broken"):
            pass
    assert (failed.value.code, failed.value.details) == ("TEMPLATE_BUILD_FAILED", {"step": "first"})


@pytest.mark.usefixtures("daemon")
async def test_failures_of_the_daemon_are_told_without_inner_matters(remote: RemoteHost, setting: Setting) -> None:
    setting.driver.failures.append(RuntimeError("a secret of the host"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(CoveError) as caught:
        await remote.create(spec())
    assert caught.value.code == "INTERNAL_ERROR"
    assert "secret" not in caught.value.message
    assert await remote.list() == ()


@pytest.mark.usefixtures("daemon")
async def test_many_calls_at_once(remote: RemoteHost) -> None:
    asked = [spec() for _ in range(50)]
    records = await asyncio.gather(*(remote.create(one) for one in asked))
    assert [record.sandbox_id for record in records] == [one.sandbox_id for one in asked]
    lists = await asyncio.gather(*(remote.list() for _ in range(200)))
    assert {len(listed) for listed in lists} == {50}
    await asyncio.gather(*(remote.destroy(one.sandbox_id) for one in asked))
    assert await remote.list() == ()


@pytest.mark.usefixtures("daemon")
async def test_a_slow_call_holds_up_no_other(remote: RemoteHost, setting: Setting) -> None:
    setting.driver.gate.clear()
    slow = asyncio.create_task(remote.create(spec()))
    assert await asyncio.wait_for(remote.list(), 5) == ()
    setting.driver.gate.set()
    await asyncio.wait_for(slow, 5)


@pytest.mark.usefixtures("daemon")
async def test_a_question_for_changes_waits_without_holding_up_others(remote: RemoteHost, setting: Setting) -> None:
    cursor = (await remote.changes("", 0.0)).cursor
    waiting = asyncio.create_task(remote.changes(cursor, 30.0))
    record = await remote.create(spec())
    assert not waiting.done()
    await setting.driver.destroy(record)
    async with asyncio.timeout(5):
        assert (await waiting).ended == (record.sandbox_id,)


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("seconds", [-1.0, 1e9, "x"])
async def test_waits_without_bound_are_refused(path: Path, seconds: object) -> None:
    (answer,) = await tell(path, wire.encode({"id": 1, "call": "changes", "args": {"cursor": "", "seconds": seconds}}))
    assert answer["error"]["code"] == "INVALID_REQUEST"


@pytest.mark.usefixtures("daemon")
async def test_an_answer_nobody_waits_for_is_dropped(remote: RemoteHost, setting: Setting) -> None:
    setting.driver.gate.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(remote.create(spec()), 0.1)
    setting.driver.gate.set()
    assert len(await remote.list()) <= 1


@pytest.mark.usefixtures("daemon")
async def test_garbage_is_refused_and_the_connection_lives(path: Path, remote: RemoteHost) -> None:
    sound = wire.encode({"id": 7, "call": "list", "args": {}})
    lines = [
        b"garbage\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b"{}\n",
        b'{"id": 1}\n',
        b'{"id": "x", "call": "list"}\n',
        b'{"id": 2, "call": "close"}\n',
        b'{"id": 3, "call": "__class__"}\n',
        b'{"id": 4, "call": "create", "args": {"spec": {}}}\n',
        b'{"id": 5, "call": "create", "args": []}\n',
        b'{"id": 6, "call": "set_deadline", "args": {"sandbox_id": "x", "deadline": "soon"}}\n',
        b"[" * 100_000 + b"\n",
        sound,
    ]
    answers = await tell(path, *lines)
    assert [answer["error"]["code"] for answer in answers if "error" in answer].count("INVALID_REQUEST") >= 12
    assert [answer for answer in answers if answer["id"] == 7] == [{"id": 7, "ok": []}]
    assert await remote.list() == ()


@pytest.mark.usefixtures("daemon")
async def test_an_oversized_line_ends_its_connection_only(path: Path, remote: RemoteHost) -> None:
    assert await remote.list() == ()
    reader, writer = await asyncio.open_unix_connection(path)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(20):
            for _ in range(2 * wire.MAX_LINE // 65536 + 2):
                writer.write(b"x" * 65536)
                await writer.drain()
            await reader.readexactly(1)
    writer.close()
    assert await remote.list() == ()


async def test_the_socket_is_for_its_owner(daemon: Daemon, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await daemon.close()
    assert not path.exists()


async def test_without_a_daemon_the_advice_is_to_start_one(remote: RemoteHost) -> None:
    with pytest.raises(CoveError) as caught:
        await remote.list()
    assert caught.value.code == "HOST_UNAVAILABLE"
    assert "cove serve" in caught.value.remedy


async def test_a_daemon_that_comes_back_is_found_again(remote: RemoteHost, setting: Setting, path: Path) -> None:
    host = await setting.host()
    first = Daemon(host)
    await first.listen(path)
    record = await remote.create(spec())
    setting.driver.gate.clear()
    pending = asyncio.create_task(remote.create(spec()))
    assert len(await remote.list()) == 1
    await first.close()
    with pytest.raises(CoveError) as caught:
        await asyncio.wait_for(pending, 5)
    assert caught.value.code == "HOST_UNAVAILABLE"
    with pytest.raises(CoveError):
        await remote.list()
    setting.driver.gate.set()
    second = Daemon(host)
    await second.listen(path)
    assert await asyncio.gather(*(remote.list() for _ in range(10))) == [(record,)] * 10
    await second.close()


async def test_a_socket_of_a_dead_daemon_is_replaced(remote: RemoteHost, setting: Setting, path: Path) -> None:
    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    dead = await asyncio.start_unix_server(ignore, path)
    dead.close()
    daemon = Daemon(await setting.host())
    await daemon.listen(path)
    assert await remote.list() == ()
    await daemon.close()


async def test_a_daemon_that_does_not_answer_is_given_up(path: Path) -> None:
    done = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        done.set()

    remote = RemoteHost(path, call_seconds=0.1)
    async with peer_at(path, be_silent):
        with pytest.raises(CoveError) as caught:
            await remote.list()
        await remote.close()
        await asyncio.wait_for(done.wait(), 5)
    assert caught.value.code == "HOST_UNAVAILABLE"
    assert "did not answer list" in caught.value.message


NONSENSE = (
    *(b"", b"garbage\n", b"[]\n", b"7\n", b"{}\n", b'{"id": 1}\n'),
    *(b'{"id": 1, "ok": {"not": "a list"}}\n', b'{"id": 1, "error": 3}\n'),
)


@pytest.mark.parametrize("answer", NONSENSE)
async def test_answers_that_make_no_sense_are_typed_errors(path: Path, answer: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    remote = RemoteHost(path, call_seconds=5)
    async with peer_at(path, babble):
        with pytest.raises(CoveError) as caught:
            await asyncio.wait_for(remote.list(), 5)
        await remote.close()
    assert caught.value.code in ("HOST_UNAVAILABLE", "INTERNAL_ERROR")
