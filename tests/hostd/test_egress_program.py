"""The egress program as the host daemon runs it: a process of its own, without privileges, replaced when it dies."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.captured_network import captured_network
from tests.internet import Internet, enter
from tests.internet_servers import ECHO_PORT, NAMES, NAMESERVER

from cove.host.authority import load_authority
from cove.host.capturing import capture
from cove.hostd.egress import Egress
from cove.hostd.egress_log import EgressLogFile
from cove.models.errors import CoveError, error
from cove.models.network import EgressPolicy, NetworkReport

pytestmark = pytest.mark.anyio

_USER = 1_879_000_000
_SECONDS = 10.0
_REACHES = f"""
import socket
try:
    with socket.create_connection(("{NAMES["allowed.example"]}", {ECHO_PORT}), 3) as connection:
        connection.sendall(b"x")
        print(connection.recv(1))
except OSError as problem:
    print(type(problem).__name__)
"""
_OPEN = EgressPolicy(allow=(f"{NAMES['allowed.example']}:{ECHO_PORT}",))


class Captured:
    """One namespace, which stands for a sandbox's."""

    def __init__(self) -> None:
        self.namespace, sockets = captured_network()
        for sock in sockets:
            sock.close()

    async def capture(self, sandbox_id: str) -> list[socket.socket]:
        """As often as it is asked for."""
        if sandbox_id != "one":
            raise error("SANDBOX_NOT_FOUND", "It has ended.")
        holder = await asyncio.create_subprocess_exec("sleep", "60", preexec_fn=lambda: enter(self.namespace))
        pidfd = os.pidfd_open(holder.pid)
        try:
            return await capture(pidfd)
        finally:
            os.close(pidfd)
            holder.kill()
            await holder.wait()


@pytest.fixture
def sandbox(internet: Internet) -> Iterator[Captured]:
    with internet.on_machine():
        captured = Captured()
        yield captured
        os.close(captured.namespace)


def _egress(directory: Path, sandbox: Captured, log_file: EgressLogFile | None = None) -> Egress:
    return Egress(
        directory,
        capture=sandbox.capture,
        secrets_of=lambda _: (),
        authority=functools.partial(load_authority, directory / "authority"),
        user=_USER,
        nameservers=(NAMESERVER,),
        log_file=log_file,
    )


@pytest.fixture
def log_path(short_dir: Path) -> Path:
    return short_dir / "all.jsonl"


@pytest.fixture
async def egress(sandbox: Captured, short_dir: Path, log_path: Path) -> AsyncIterator[Egress]:
    (short_dir / "logs").mkdir()
    egress = _egress(short_dir, sandbox, EgressLogFile(log_path))
    try:
        yield egress
    finally:
        await egress.close(end=True)
        async with asyncio.timeout(_SECONDS):
            while _programs(short_dir):
                await asyncio.sleep(0.01)


@pytest.fixture
def namespace(sandbox: Captured) -> int:
    return sandbox.namespace


async def _reaches(namespace: int) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _REACHES),
        stdout=asyncio.subprocess.PIPE,
        pass_fds=[namespace],
        preexec_fn=lambda: enter(namespace),
    )
    async with asyncio.timeout(_SECONDS):
        stdout, _ = await process.communicate()
    return stdout.decode().strip()


async def _settled(egress: Egress) -> NetworkReport:
    """The report once all connections are noted."""
    async with asyncio.timeout(_SECONDS):
        while (report := await egress.report("one", after=0)).totals.open_connections:
            await asyncio.sleep(0.01)
    return report


def _programs(directory: Path) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"cove.egress" in words and any(str(directory).encode() in word for word in words):
                found.append(int(path.parent.name))
    return found


async def test_opened_changed_and_closed(egress: Egress, namespace: int) -> None:
    assert await _reaches(namespace) == "ConnectionRefusedError"
    await egress.apply("one", _OPEN)
    assert await _reaches(namespace) == "b'x'"
    await egress.apply("one", EgressPolicy(allow=("other.example",)))
    assert await _reaches(namespace) == "ConnectionResetError"
    await egress.apply("one", EgressPolicy())
    assert await _reaches(namespace) == "ConnectionRefusedError"
    report = await _settled(egress)
    assert [entry.allowed for entry in report.entries] == [True, False]
    assert report.totals.sent_bytes == report.totals.received_bytes == 1
    await egress.forget("one")
    assert await _reaches(namespace) == "ConnectionRefusedError"


async def test_it_has_no_privileges(egress: Egress, namespace: int, short_dir: Path) -> None:
    await egress.apply("one", _OPEN)
    (pid,) = _programs(short_dir)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines())
    assert status["Uid"].split() == [str(_USER)] * 4
    assert status["Groups"].strip() == ""
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


async def test_one_that_died_is_replaced_and_goes_on(egress: Egress, namespace: int, short_dir: Path) -> None:
    await egress.apply("one", _OPEN)
    (pid,) = _programs(short_dir)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(_SECONDS):
        while await _reaches(namespace) != "b'x'":
            pass
    assert _programs(short_dir) != [pid]


async def _logged(path: Path, lines: int) -> list[dict[str, object]]:
    async with asyncio.timeout(_SECONDS):
        while len(found := path.read_bytes().splitlines() if path.exists() else []) < lines:
            await asyncio.sleep(0.01)
    return [json.loads(line) for line in found]


async def test_all_programs_write_the_log(egress: Egress, namespace: int, short_dir: Path, log_path: Path) -> None:
    await egress.adopt({})
    await egress.apply("one", _OPEN)
    assert await _reaches(namespace) == "b'x'"
    (entry,) = await _logged(log_path, 1)
    assert (entry["sandbox_id"], entry["port"], entry["sent_bytes"]) == ("one", ECHO_PORT, 1)
    assert log_path.stat().st_mode & 0o777 == 0o600
    (pid,) = _programs(short_dir)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(_SECONDS):
        while await _reaches(namespace) != "b'x'":
            pass
    await _logged(log_path, 2)
    moved = log_path.rename(short_dir / "moved.jsonl")
    async with asyncio.timeout(_SECONDS):
        while not log_path.exists():
            await asyncio.sleep(0.01)
    assert await _reaches(namespace) == "b'x'"
    before = len(moved.read_bytes().splitlines())
    await _logged(log_path, 1)
    assert len(moved.read_bytes().splitlines()) == before, "the program has the new file"
    assert (await egress.totals()).connections == (await egress.totals("one")).connections > 1


async def test_one_that_is_full_is_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    file = EgressLogFile(path, max_bytes=10)
    try:
        os.write(file.descriptor, b"x" * 11)
        assert file.renew()
        assert path.with_name("all.jsonl.1").read_bytes() == b"x" * 11
        os.write(file.descriptor, b"y")
        assert path.read_bytes() == b"y"
        assert not file.renew()
    finally:
        file.close()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CoveError, match="cannot be written"):
        EgressLogFile(path)


async def test_it_outlives_the_daemon_that_started_it(
    egress: Egress, sandbox: Captured, namespace: int, short_dir: Path
) -> None:
    await egress.apply("one", _OPEN)
    await egress.close(end=False)
    assert await _reaches(namespace) == "b'x'"
    heir = _egress(short_dir, sandbox)
    try:
        await heir.adopt({"one": _OPEN})
        assert await _reaches(namespace) == "b'x'"
        assert len((await _settled(heir)).entries) == 2
        await heir.adopt({})
        assert await _reaches(namespace) == "ConnectionRefusedError"
    finally:
        await heir.close(end=True)


async def test_what_is_not_captured_cannot_be_opened(egress: Egress) -> None:
    await egress.apply("unknown", EgressPolicy())
    with pytest.raises(CoveError, match="has ended"):
        await egress.apply("unknown", _OPEN)
    await egress.forget("unknown")
