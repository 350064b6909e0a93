"""Whoever calls the host daemon may have been taken over: anything may come over its socket, at any speed."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hostd.conftest import Setting, spec

from cove.hostd import daemon as daemons
from cove.hostd import wire
from cove.hostd.client import RemoteHost
from cove.hostd.daemon import Daemon
from cove.models.errors import ERRORS, CoveError
from cove.models.identifiers import new_sandbox_id

pytestmark = pytest.mark.anyio

SECONDS = 20.0

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        *("sandbox_id", "deadline", "env_vars", "cursor", "seconds", "name", "spec", "derivation", "template"),
        *("limits", "required_limits", "owned_directories", "isolation", "directories", "base", "pooled", "x"),
        *("secrets", "changed", "removed", "placeholder", "value", "hosts", "places"),
    ]
)
IDS = st.sampled_from(["1763382095i648uu1o", "../../etc/passwd", "", "base", "t7", "x" * 5000]) | st.text(max_size=20)
ARGUMENTS = st.dictionaries(NAMES, JSON | IDS | st.dictionaries(NAMES, JSON | IDS, max_size=5), max_size=5)
CALLS = st.sampled_from(sorted(wire.CALLS)) | st.sampled_from(["close", "__class__", "open", ""]) | st.text(max_size=10)
MESSAGES = st.fixed_dictionaries({"id": st.integers(0, 99) | JSON, "call": CALLS | JSON, "args": ARGUMENTS | JSON})
LINES = MESSAGES.map(lambda message: json.dumps(message).encode()) | st.binary(max_size=200).map(
    lambda raw: raw.replace(b"\n", b" ") or b" "
)


VALUE = "sk-live-2f6c1e0b9a"
SECRET = {
    "name": "API_KEY",
    "placeholder": "cove-secret-" + "0f" * 16,
    "value": VALUE,
    "hosts": ["api.example.com"],
    "places": ["headers"],
}


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "hostd.sock"


@pytest.fixture
async def daemon(setting: Setting, path: Path) -> AsyncIterator[Daemon]:
    served = Daemon(await setting.host())
    await served.listen(path)
    yield served
    await served.close()


@contextmanager
def talking_to(path: Path) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(SECONDS)
        caller.connect(str(path))
        yield caller


@pytest.mark.usefixtures("daemon")
async def test_whatever_comes_is_answered_or_hung_up_on(path: Path) -> None:
    sound = wire.encode({"id": 1000, "call": "list", "args": {}})

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(lines=st.lists(LINES, min_size=1, max_size=5))
    def ask(lines: list[bytes]) -> None:
        with talking_to(path) as caller, caller.makefile("rb") as answers:
            caller.sendall(b"".join(line + b"\n" for line in lines) + sound)
            codes: list[str] = []
            while (answer := json.loads(answers.readline())).get("id") != 1000 or "ok" not in answer:
                assert isinstance(answer["id"], int)
                if "error" in answer:
                    codes.append(answer["error"]["code"])
            assert set(codes) <= ERRORS.keys()
            assert "INTERNAL_ERROR" not in codes, lines

    await asyncio.to_thread(ask)


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    "more",
    [
        {"unknown": 1},
        {"limits": {"vcpu": 1, "unknown": 1}},
        {"limits": {"memory_mb": 2**40}},
        {"required_limits": ["mounts"]},
        {"owned_directories": ["/etc"]},
        {"owned_directories": ["/a/../b"]},
        {"owned_directories": [f"/d{n}" for n in range(65)]},
        {"template": "../base"},
        {"template": "Base"},
        {"deadline": 1e300},
        {"env_vars": {"A": "x" * 300_000}},
        {"env_vars": {f"A{n}": "x" for n in range(1001)}},
        {"env_vars": {"A=B": "x"}},
        {"env_vars": {"A": "x\0"}},
        {"secrets": [SECRET, SECRET]},
        {"secrets": [{**SECRET, "placeholder": "cove-secret-.*"}]},
    ],
    ids=lambda more: f"{more!r:.40}",
)
async def test_what_does_not_fit_reaches_no_driver(path: Path, setting: Setting, more: dict[str, Any]) -> None:
    asked = {**spec().model_dump(mode="json"), **more}
    with talking_to(path) as caller, caller.makefile("rb") as answers:
        await asyncio.to_thread(caller.sendall, wire.encode({"id": 1, "call": "create", "args": {"spec": asked}}))
        answer = json.loads(await asyncio.to_thread(answers.readline))
    assert answer["error"]["code"] == "INVALID_REQUEST"
    assert len(answer["error"]["message"]) < 1000
    assert not setting.driver.sandboxes


@pytest.mark.parametrize(
    "more",
    [
        {"changed": [{**SECRET, "unknown": VALUE}]},
        {"changed": [{**SECRET, "name": "A=B"}]},
        {"changed": [{**SECRET, "name": VALUE + "\n"}]},
        {"changed": [{**SECRET, "placeholder": "a"}]},
        {"changed": [{**SECRET, "value": f"{VALUE}\r\nhost: x"}]},
        {"changed": [{**SECRET, "value": VALUE * 1000}]},
        {"changed": [{**SECRET, "hosts": []}]},
        {"changed": [{**SECRET, "hosts": ["10.0.0.0/8"]}]},
        {"changed": [{**SECRET, "hosts": ["*"]}]},
        {"changed": [{**SECRET, "hosts": ["api.example.com"] * 33}]},
        {"changed": [{**SECRET, "places": ["everywhere"]}]},
        {"changed": [{**SECRET, "places": []}]},
        {"changed": [SECRET, {**SECRET, "placeholder": "cove-secret-" + "1f" * 16}]},
        {"changed": [SECRET, {**SECRET, "name": "OTHER"}]},
        {"changed": [{**SECRET, "name": f"A{n}", "placeholder": f"cove-secret-{n:032x}"} for n in range(33)]},
        {"removed": ["../API_KEY"]},
        {"removed": "API_KEY"},
        {"sandbox_id": "../../etc/passwd"},
    ],
    ids=lambda more: f"{more!r:.60}",
)
def test_secrets_that_do_not_fit_are_refused_without_being_told(more: dict[str, Any]) -> None:
    asked = {"sandbox_id": new_sandbox_id(), "changed": [SECRET], "removed": ["OLD"]}
    arguments, _ = wire.CALLS["set_secrets"]
    assert VALUE not in repr(arguments.model_validate(asked))
    with pytest.raises(pydantic.ValidationError) as refused:
        arguments.model_validate({**asked, **more})
    problem = wire.invalid(refused.value)
    assert problem.code == "INVALID_REQUEST"
    assert VALUE not in problem.message


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("number", ["Infinity", "NaN", "-1", "1e400", '"soon"'])
async def test_deadlines_are_times(path: Path, number: str) -> None:
    line = '{"id": 1, "call": "set_deadline", "args": {"sandbox_id": "%s", "deadline": %s}}\n'
    with talking_to(path) as caller, caller.makefile("rb") as answers:
        caller.sendall((line % (new_sandbox_id(), number)).encode())
        answer = json.loads(await asyncio.to_thread(answers.readline))
    assert answer["error"]["code"] == "INVALID_REQUEST"


async def test_a_host_has_maxima_of_its_own(setting: Setting) -> None:
    host = await setting.host(ceilings={"memory_mb": 512, "vcpu": 2})
    for limits in ({"memory_mb": 513}, {"memory_mb": 512, "vcpu": 3}):
        with pytest.raises(CoveError, match="at most") as refused:
            await host.create(spec(limits=limits))
        assert refused.value.code == "INVALID_REQUEST"
    assert not setting.driver.sandboxes
    await host.create(spec(limits={"memory_mb": 512, "vcpu": 2}))


async def test_users_who_are_not_the_servers_are_hung_up_on(setting: Setting, path: Path, as_root: None) -> None:
    served = Daemon(await setting.host(), server_uid=4242)
    await served.listen(path, mode=0o666)  # the mode alone would let anybody in
    code = """
import os, socket, sys
os.setresuid(*[int(sys.argv[2])] * 3)
with socket.socket(socket.AF_UNIX) as caller:
    caller.settimeout(10)
    caller.connect(sys.argv[1])
    try:
        caller.sendall(b'{"id":1,"call":"list","args":{}}\\n')
        print(caller.recv(100))
    except ConnectionError:
        print(b"")
"""
    path.parent.chmod(0o755)
    try:
        for uid, answer in ((0, b'{"id":1,"ok":[]}\n'), (4242, b'{"id":1,"ok":[]}\n'), (4243, b"")):
            command = [sys.executable, "-c", code, str(path), str(uid)]
            asked = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=SECONDS, check=True)
            assert asked.stdout.decode().strip() == repr(answer), uid
        assert path.stat().st_uid == 4242
    finally:
        await served.close()


@pytest.mark.usefixtures("daemon")
async def test_connections_are_counted(path: Path) -> None:
    remote = RemoteHost(path, call_seconds=SECONDS)
    try:
        assert await remote.list() == ()
        with contextlib.ExitStack() as callers:
            held = [callers.enter_context(talking_to(path)) for _ in range(80)]
            await asyncio.to_thread(held[-1].recv, 1)  # b"": hung up on
            assert await remote.list() == (), "who was there before goes on"
        async with asyncio.timeout(SECONDS):
            while True:
                with talking_to(path) as caller, caller.makefile("rb") as answers:
                    caller.sendall(wire.encode({"id": 1, "call": "list", "args": {}}))
                    if await asyncio.to_thread(answers.readline):
                        break
    finally:
        await remote.close()


async def test_who_does_not_read_is_hung_up_on(setting: Setting, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemons, "READ_SECONDS", 0.2)
    served = Daemon(await setting.host())
    await served.listen(path)
    remote = RemoteHost(path, call_seconds=SECONDS)
    try:
        with talking_to(path) as caller:
            question = wire.encode({"id": 1, "call": "templates", "args": {}})
            caller.settimeout(0.5)
            with contextlib.suppress(ConnectionError, TimeoutError):
                for _ in range(20_000):
                    await asyncio.to_thread(caller.sendall, question * 10)
            assert await remote.list() == ()
            caller.settimeout(SECONDS)

            def drained() -> bool:
                with contextlib.suppress(ConnectionError):
                    while caller.recv(2**20):
                        pass
                return True

            assert await asyncio.to_thread(drained), "what had been answered comes, then the end"
    finally:
        await remote.close()
        await served.close()
