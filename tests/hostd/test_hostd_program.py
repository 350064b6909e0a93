"""The daemon as a program with real sandboxes: one a data directory, orderly and sudden ends, adoption."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import (
    Inside,
    Process,
    nothing_remains,
    until,
)
from tests.hostd.hostd_program import START_SECONDS, Program, on_own_directory

from cove.models.isolation import Isolation

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("as_root")]


@pytest.fixture
async def program(built_data_dir: Path) -> AsyncIterator[Program]:
    async with on_own_directory(built_data_dir) as program:
        yield program


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
