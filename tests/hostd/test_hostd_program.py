"""The daemon as a program with real sandboxes: one a data directory, orderly and sudden ends, adoption."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import (
    SMALL,
    Inside,
    NamespaceSubject,
    Process,
    built_template,
    clean_up,
    nothing_remains,
    short_directory,
    spec_of,
    until,
)

from cove.hostd.client import RemoteHost
from cove.models.hosts import SandboxRecord
from cove.models.isolation import Isolation

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("as_root")]

START_SECONDS = 40.0
END_SECONDS = 20.0


class Program:
    """`python -m cove.hostd` on one data directory, started again and again."""

    def __init__(self, data_dir: Path, subject: NamespaceSubject) -> None:
        self.data_dir = data_dir
        self.subject = subject
        self.remote = RemoteHost(data_dir / "run/hostd.sock")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> None:
        """Return when it is ready."""
        ready, for_child = os.pipe()
        try:
            self._process = await self.launch("--ready-fd", str(for_child), *arguments, keep=for_child)
            os.close(for_child)
            assert await asyncio.wait_for(asyncio.to_thread(os.read, ready, 1), START_SECONDS) == b"!"
        finally:
            os.close(ready)

    async def launch(self, *arguments: str, keep: int | None = None) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cove.hostd", "--data-dir", self.data_dir.name, "--isolation", "namespace"),
            *arguments,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=() if keep is None else (keep,),
            cwd=self.data_dir.parent,
        )

    async def end(self, number: int = signal.SIGTERM) -> int:
        """End the running one and return its exit code."""
        assert self._process
        if self._process.returncode is None:
            self._process.send_signal(number)
        await asyncio.wait_for(self._process.communicate(), END_SECONDS)
        code, self._process = self._process.returncode, None
        assert code is not None
        return code

    async def create(self, **fields: object) -> SandboxRecord:
        asked = spec_of(self.subject, SMALL, **fields)
        record = await self.remote.create(asked)
        assert self.subject.remains_of(record)
        return record

    async def close(self) -> None:
        """End everything, sandboxes that were to be kept included."""
        if not self._process and self.subject.remains():
            await self.start()
        if self._process:
            assert await self.end() == 0
        await self.remote.close()


@pytest.fixture
def data_dir(built_data_dir: Path) -> Iterator[Path]:
    with short_directory() as directory:
        for name in ("templates", "layers"):
            (directory / name).symlink_to(built_data_dir / name)
        yield directory


@pytest.fixture
async def program(data_dir: Path, built_data_dir: Path) -> AsyncIterator[Program]:
    (data_dir / "run").mkdir()
    subject = NamespaceSubject(data_dir / "run", built_template(built_data_dir, "base"), mark="")
    made = Program(data_dir, subject)
    yield made
    try:
        await made.close()
    finally:
        await clean_up(subject)
    assert list((data_dir / "run/sandboxes").iterdir()) == []


def dead(processes: list[Process]) -> bool:
    return not any(process.alive for process in processes)


async def test_a_second_daemon_is_refused_and_the_first_goes_on(program: Program) -> None:
    await program.start()
    record = await program.create()
    second = await program.launch()
    _, message = await asyncio.wait_for(second.communicate(), START_SECONDS)
    assert second.returncode == 1
    assert b"Another host daemon runs on" in message
    assert b"--data-dir" in message
    assert await program.remote.list() == (record,)
    assert await Inside(record).health() == 200


async def test_sigterm_ends_all_sandboxes(program: Program) -> None:
    await program.start()
    record = await program.create()
    await Inside(record).output("setsid -f sleep 1000 </dev/null >/dev/null 2>&1")
    processes = Inside(record).processes()
    assert len(processes) >= 2
    assert await program.end(signal.SIGTERM) == 0
    assert dead(processes)
    assert not (program.data_dir / "run/hostd.sock").exists()
    await nothing_remains(program.subject)


async def test_sandboxes_can_be_kept(program: Program) -> None:
    await program.start("--keep-sandboxes")
    record = await program.create()
    await Inside(record).output("kept = 41", "python")
    assert await program.end(signal.SIGTERM) == 0
    assert not (program.data_dir / "run/hostd.sock").exists()
    assert await Inside(record).output("print(kept + 1)", "python") == "42"
    await program.start()
    assert await program.remote.list() == (record,)
    assert await Inside(record).output("print(kept + 2)", "python") == "43"


async def test_after_a_sudden_end_sandboxes_are_adopted(program: Program) -> None:
    await program.start()
    lasting = await program.create()
    paused = await program.create()
    due = await program.create(deadline=time.time() + 1000)
    killed = await program.create()
    await program.remote.pause(paused.sandbox_id)
    await program.remote.set_deadline(due.sandbox_id, time.time() + 0.1)
    assert await program.end(signal.SIGKILL) == -signal.SIGKILL
    os.kill(killed.pid, signal.SIGKILL)
    assert await Inside(lasting).output("echo alive") == "alive"
    processes = Inside(due).processes()
    await program.start()
    await until(lambda: dead(processes), seconds=5)
    async with asyncio.timeout(10):
        while len(await program.remote.list()) > 2:
            await asyncio.sleep(0.01)
    assert {record.sandbox_id for record in await program.remote.list()} == {lasting.sandbox_id, paused.sandbox_id}
    await nothing_remains(program.subject, due)
    await nothing_remains(program.subject, killed)
    await program.remote.resume(paused.sandbox_id)
    assert await Inside(paused).health() == 200
    created = await program.create()
    assert await Inside(created).health() == 200
    await program.remote.destroy(lasting.sandbox_id)
    await nothing_remains(program.subject, lasting)


async def test_a_sandbox_that_is_killed_from_outside_is_noticed(program: Program) -> None:
    await program.start()
    record = await program.create()
    os.kill(record.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        while await program.remote.list():
            await asyncio.sleep(0.01)
    await nothing_remains(program.subject, record)


async def test_it_knows_what_it_can_do(program: Program) -> None:
    await program.start("--max-sandboxes", "3")
    capacity = await program.remote.capacity()
    assert capacity.max_sandboxes == 3
    assert Isolation.NAMESPACE in [report.isolation for report in capacity.drivers if report.available]
    assert Isolation.GVISOR in [report.isolation for report in capacity.drivers]
    assert "base" in [template.name for template in await program.remote.templates()]
    await program.remote.warm("base")


async def test_many_creates_through_the_socket_leave_nothing(program: Program) -> None:
    await program.start()
    records = await asyncio.gather(*(program.create() for _ in range(20)))
    assert len(await program.remote.list()) == 20
    await asyncio.gather(*(program.remote.destroy(record.sandbox_id) for record in records))
    for record in records:
        await nothing_remains(program.subject, record)


async def test_a_data_directory_that_cannot_be_used_is_named(short_dir: Path) -> None:
    (short_dir / "file").write_text("")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cove.hostd", "--data-dir", str(short_dir / "file")), stderr=asyncio.subprocess.PIPE
    )
    _, message = await asyncio.wait_for(process.communicate(), START_SECONDS)
    assert process.returncode == 1
    assert str(short_dir / "file").encode() in message
    assert b"Traceback" not in message
