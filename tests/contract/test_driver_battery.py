"""What every isolation driver must do, whatever stands behind it."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.contract.driver_fixtures import (
    SMALL,
    FakeSubject,
    GvisorSubject,
    Inside,
    NamespaceSubject,
    Process,
    Subject,
    accepts,
    built_template,
    clean_up,
    need_runsc,
    nothing_remains,
    short_directory,
    spec_of,
    until,
)

from cove.drivers.base import RuntimeDriver
from cove.linux.clone import start_time_of
from cove.models.errors import CoveError
from cove.models.hosts import HostState, SandboxRecord
from cove.models.templates import TemplateManifest

pytestmark = pytest.mark.anyio

# Each line starts one that a plain SIGTERM to the shell's children would miss.
STUBBORN = """
setsid -f sleep 1000 </dev/null >/dev/null 2>&1
( ( exec sleep 1000 ) </dev/null >/dev/null 2>&1 & )
(trap '' TERM HUP INT; while :; do sleep 1000; done) </dev/null >/dev/null 2>&1 &
echo started
"""


@dataclass
class Bench:
    """A driver, and every sandbox that a test made with it."""

    subject: Subject
    driver: RuntimeDriver
    made: list[SandboxRecord] = field(default_factory=list[SandboxRecord])

    async def create(self, **fields: Any) -> SandboxRecord:
        record = await self.driver.create(spec_of(self.subject, **fields), self.subject.template)
        self.made.append(record)
        return record

    async def restart(self, *, keeps_ready: bool = False) -> None:
        """Another driver on the same directory takes this one's place."""
        self.subject.keeps_ready = keeps_ready
        await self.driver.close()
        self.driver = self.subject.open()


@pytest.fixture(scope="module", params=["namespace", "gvisor", "fake"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def new_subject(kind: str, data_dir: Path) -> Generator[Subject]:
    if kind == "namespace" and os.geteuid() != 0:
        pytest.skip("needs root")
    if kind == "gvisor":
        need_runsc()
    with short_directory() as directory:
        if kind == "namespace":
            yield NamespaceSubject(directory, built_template(data_dir, "base"))
        elif kind == "gvisor":
            template = built_template(data_dir, "base")
            yield GvisorSubject(directory, template, checkpoints=data_dir / "checkpoints")
        else:
            yield FakeSubject(directory)


@asynccontextmanager
async def new_bench(subject: Subject) -> AsyncGenerator[Bench]:
    """When all is closed nothing is left, whatever was done."""
    bench = Bench(subject, subject.open())
    try:
        yield bench
    finally:
        try:
            for record in bench.made:
                await bench.driver.destroy(record)
        finally:
            await bench.driver.close()
            await clean_up(subject)


@pytest.fixture(scope="module")
async def shared(kind: str, built_data_dir: Path) -> AsyncIterator[Bench]:
    """One driver for many tests: its fork server starts once."""
    with new_subject(kind, built_data_dir) as subject:
        async with new_bench(subject) as bench:
            yield bench


@pytest.fixture
async def bench(shared: Bench) -> AsyncIterator[Bench]:
    """The shared driver; nothing is left of a test's own sandboxes."""
    mine = Bench(shared.subject, shared.driver)
    yield mine
    for record in mine.made:
        await mine.driver.destroy(record)
    for record in mine.made:
        await nothing_remains(mine.subject, record)


@pytest.fixture
async def alone(kind: str, built_data_dir: Path) -> AsyncIterator[Bench]:
    """A driver with nothing around it that others made: for tests of what is left, of restarts and of ends."""
    with new_subject(kind, built_data_dir) as subject:
        subject.keeps_ready = False
        async with new_bench(subject) as bench:
            yield bench


def processes(bench: Bench, record: SandboxRecord) -> list[Process]:
    return Inside(record).processes() if bench.subject.has_processes else []


def need(holds: bool, what: str) -> None:
    if not holds:
        pytest.skip(f"this driver has no {what}")


async def test_the_probe_says_what_it_saw(bench: Bench) -> None:
    first, again = await asyncio.gather(bench.driver.check(), bench.driver.check())
    assert first.available, first.problems
    assert first == again
    assert first.isolation is bench.driver.isolation
    assert first.problems == first.remedies == ()
    assert first.capabilities.pause


async def test_a_new_sandbox_answers(bench: Bench) -> None:
    record = await bench.create()
    assert await Inside(record).health() == 200


async def test_a_record_tells_the_truth(bench: Bench) -> None:
    record = await bench.create(deadline=4e9, pooled=True)
    assert record.isolation is bench.driver.isolation
    assert (record.template, record.template_digest) == (bench.subject.template.name, bench.subject.template.digest)
    assert (record.state, record.deadline, record.pooled, record.limits) == (HostState.RUNNING, 4e9, True, SMALL)
    if bench.subject.has_processes:
        assert start_time_of(record.pid) == record.pid_started


async def test_two_sandboxes_are_separate(bench: Bench) -> None:
    first, second = await asyncio.gather(bench.create(), bench.create())
    assert first.socket_path != second.socket_path
    need(bench.subject.runs_programs, "programs")
    await Inside(first).output("echo mine > /workspace/file; export X=1; sleep 1000 >/dev/null 2>&1 &")
    seen = await Inside(second).output("ls /workspace; pgrep -c sleep || true")
    assert seen == "0"
    assert await Inside(first).output("cat /workspace/file; pgrep -c sleep") == "mine\n1"


async def test_variables_of_the_request_are_inside(bench: Bench) -> None:
    need(bench.subject.runs_programs, "programs")
    record = await bench.create(env_vars={"GREETING": "good day"})
    assert await Inside(record).output("echo $GREETING") == "good day"


async def test_destroy_ends_every_process(bench: Bench) -> None:
    need(bench.subject.runs_programs, "programs")
    record = await bench.create()
    assert await Inside(record).output(STUBBORN) == "started"
    before = processes(bench, record)
    assert len(before) >= 5
    assert all(process.alive for process in before)
    await bench.driver.destroy(record)
    assert [process for process in before if process.alive] == []
    assert not accepts(record.socket_path)
    await nothing_remains(bench.subject, record)


async def test_destroy_can_be_repeated(bench: Bench) -> None:
    record = await bench.create()
    await asyncio.gather(bench.driver.destroy(record), bench.driver.destroy(record))
    await bench.driver.destroy(record)
    await nothing_remains(bench.subject, record)


async def test_a_paused_sandbox_can_be_destroyed(bench: Bench) -> None:
    record = await bench.create()
    before = processes(bench, record)
    await bench.driver.pause(record)
    await bench.driver.destroy(record)  # with a record that does not know of the pause
    assert [process for process in before if process.alive] == []
    await nothing_remains(bench.subject, record)


async def test_pause_stops_and_resume_goes_on(bench: Bench) -> None:
    need(bench.subject.runs_programs, "programs")
    record = await bench.create()
    await Inside(record).output("(while :; do :; done) >/dev/null 2>&1 &")
    await _uses_cpu(bench.driver, record)
    await bench.driver.pause(record)
    await bench.driver.pause(record)
    stopped = await bench.driver.usage(record)
    with pytest.raises(httpx2.ReadTimeout):
        await Inside(record).health(seconds=0.3)
    assert (await bench.driver.usage(record)).cpu_seconds == stopped.cpu_seconds
    await bench.driver.resume(record)
    await bench.driver.resume(record)
    assert await Inside(record).health() == 200
    await _uses_cpu(bench.driver, record)


async def _uses_cpu(driver: RuntimeDriver, record: SandboxRecord) -> None:
    before = (await driver.usage(record)).cpu_seconds
    async with asyncio.timeout(10):
        while (await driver.usage(record)).cpu_seconds < before + 0.02:
            await asyncio.sleep(0.005)


async def stopped_one(bench: Bench) -> SandboxRecord:
    need(bench.driver.capabilities.stop_start, "stop and start")
    return await bench.driver.stop(await bench.create())


def disk_only(bench: Bench, record: SandboxRecord) -> None:
    """Of a stopped sandbox there is its disk and nothing else."""
    assert (record.state, record.pid) == (HostState.STOPPED, 0)
    assert {line.split()[0] for line in bench.subject.remains_of(record)} <= {"disk"}
    assert not accepts(record.socket_path)


async def test_the_report_says_whether_it_can_stop_and_start(bench: Bench) -> None:
    assert (await bench.driver.check()).capabilities == bench.driver.capabilities


async def test_stop_ends_every_process_and_leaves_only_the_disk(bench: Bench) -> None:
    need(bench.driver.capabilities.stop_start, "stop and start")
    record = await bench.create()
    if bench.subject.runs_programs:
        assert await Inside(record).output(STUBBORN) == "started"
    before = processes(bench, record)
    stopped = await bench.driver.stop(record)
    assert [process for process in before if process.alive] == []
    disk_only(bench, stopped)
    assert await bench.driver.stop(stopped) == stopped
    disk_only(bench, stopped)


async def test_start_finds_everything_that_was_written(bench: Bench) -> None:
    need(bench.driver.capabilities.stop_start, "stop and start")
    need(bench.subject.runs_programs, "programs")
    record = await bench.create(deadline=4e9, env_vars={"GREETING": "before"})
    await Inside(record).output(
        "mkdir -p /workspace/a/b && echo kept > /workspace/a/b/file && ln -s /etc/passwd /tmp/link"
        " && echo home > ~/note && chmod 751 /workspace/a && rm -r /home/user/.cache 2>/dev/null;"
        " head -c 3000000 /dev/urandom > /tmp/big; sha256sum < /tmp/big > /workspace/sum; sleep 1000 >/dev/null 2>&1 &"
    )
    for round_ in range(3):
        stopped = await bench.driver.stop(record)
        record = await bench.driver.start(stopped, bench.subject.template, {"GREETING": f"round {round_}"})
        assert (record.sandbox_id, record.limits, record.deadline) == (stopped.sandbox_id, SMALL, 4e9)
        assert (record.state, record.created) == (HostState.RUNNING, stopped.created)
        seen = await Inside(record).output(
            "cat /workspace/a/b/file ~/note; readlink /tmp/link; stat -c %a:%u /workspace/a;"
            " sha256sum < /tmp/big | cmp - /workspace/sum && echo same; echo $GREETING; pgrep -c sleep || true"
        )
        assert seen.split("\n") == ["kept", "home", "/etc/passwd", "751:1000", "same", f"round {round_}", "0"]
        assert await Inside(record).output("echo > /workspace/new && rm /workspace/new && id -u") == "1000"
        assert await Inside(record).output("x = 1; print(x)", "python") == "1"


async def test_a_started_sandbox_has_its_limits_again(bench: Bench) -> None:
    need(bench.subject.runs_programs, "programs")
    record = await bench.driver.start(await stopped_one(bench), bench.subject.template, {})
    filled = await Inside(record).run("cat /dev/zero > /workspace/big")
    assert "No space left on device" in filled["stderr"]
    await Inside(record).output("rm /workspace/big")
    record = await bench.driver.start(await bench.driver.stop(record), bench.subject.template, {})
    usage = await bench.driver.usage(record)
    assert 0 < usage.pids <= SMALL.pids
    if bench.subject.survives_oom:
        killed = await Inside(record).run("x = bytearray(400_000_000)", "python")
        assert killed["exit_code"] != 0
    else:
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await Inside(record).run("x = bytearray(400_000_000)", "python")
        async with asyncio.timeout(10):
            await bench.driver.wait(record)
        assert await bench.driver.limit_at_end(record) == f"memory {SMALL.memory_mb} MiB"


async def test_a_paused_sandbox_can_be_stopped_and_comes_back_running(bench: Bench) -> None:
    need(bench.driver.capabilities.stop_start, "stop and start")
    record = await bench.create()
    await bench.driver.pause(record)
    stopped = await bench.driver.stop(record)
    disk_only(bench, stopped)
    started = await bench.driver.start(stopped, bench.subject.template, {})
    assert await Inside(started).health() == 200


async def test_a_stopped_sandbox_can_be_destroyed(bench: Bench) -> None:
    stopped = await stopped_one(bench)
    await asyncio.gather(bench.driver.destroy(stopped), bench.driver.destroy(stopped))
    await nothing_remains(bench.subject, stopped)
    with pytest.raises(CoveError) as caught:
        await bench.driver.start(stopped, bench.subject.template, {})
    assert caught.value.code == "SANDBOX_NOT_FOUND"


async def test_a_stopped_sandbox_uses_no_memory_and_its_wait_is_over(bench: Bench) -> None:
    stopped = await stopped_one(bench)
    usage = await bench.driver.usage(stopped)
    assert usage.memory_bytes == 0
    async with asyncio.timeout(5):
        await bench.driver.wait(stopped)


async def test_a_start_that_fails_leaves_it_stopped(bench: Bench) -> None:
    need(bench.subject.has_processes, "starts that fail")
    stopped = await stopped_one(bench)
    broken = bench.subject.template.model_copy(update={"digest": "bad4", "layers": ("/nonexistent/layer",)})
    with pytest.raises(CoveError) as caught:
        await bench.driver.start(stopped, broken, {})
    assert caught.value.code == "SANDBOX_START_FAILED"
    disk_only(bench, stopped)
    started = await bench.driver.start(stopped, bench.subject.template, {})
    assert await Inside(started).health() == 200


async def test_a_start_that_is_given_up_leaves_it_stopped(alone: Bench) -> None:
    need(alone.subject.has_processes, "steps to be interrupted at")
    record = await alone.create()
    await Inside(record).output("echo kept > /workspace/file")
    stopped = await alone.driver.stop(record)
    given_up = 0
    for milliseconds in alone.subject.moments:
        try:
            async with asyncio.timeout(milliseconds / 1000):
                record = await alone.driver.start(stopped, alone.subject.template, {})
        except TimeoutError:
            given_up += 1
            disk_only(alone, stopped)
        else:
            assert await Inside(record).output("cat /workspace/file") == "kept"
            stopped = await alone.driver.stop(record)
    assert given_up >= 3


async def test_user_ids_of_a_stopped_sandbox_are_its_own(alone: Bench) -> None:
    need(alone.subject.has_processes, "user ids")
    record = await alone.create()
    user = alone.subject.user_of(record)
    stopped = await alone.driver.stop(record)
    await alone.restart()
    assert await alone.driver.adopt(stopped)
    others = await asyncio.gather(*(alone.create() for _ in range(alone.subject.burst)))
    assert user not in {alone.subject.user_of(other) for other in others}
    started = await alone.driver.start(stopped, alone.subject.template, {})
    assert alone.subject.user_of(started) == user
    await alone.driver.destroy(started)


async def test_a_stopped_sandbox_is_adopted_by_the_next_driver(alone: Bench) -> None:
    need(alone.subject.can_outlive, "life beyond its driver")
    record = await alone.create()
    await Inside(record).output("echo kept > /workspace/file")
    stopped = await alone.driver.stop(record)
    await alone.restart()
    assert await alone.driver.adopt(stopped)
    assert await alone.driver.adopt(stopped)
    await alone.driver.sweep(frozenset({stopped.sandbox_id}))
    disk_only(alone, stopped)
    started = await alone.driver.start(stopped, alone.subject.template, {})
    assert await Inside(started).output("cat /workspace/file") == "kept"


async def test_a_stop_that_was_cut_off_is_finished_at_adoption(alone: Bench) -> None:
    need(alone.subject.can_outlive, "life beyond its driver")
    record = await alone.create()
    await Inside(record).output("echo kept > /workspace/file; sync")
    before = processes(alone, record)
    intended = record.model_copy(update={"state": HostState.STOPPED})  # as the host writes it before it stops
    await alone.restart()
    assert await alone.driver.adopt(intended)
    await until(lambda: not any(process.alive for process in before))
    stopped = await alone.driver.stop(intended)
    disk_only(alone, stopped)
    started = await alone.driver.start(stopped, alone.subject.template, {})
    assert await Inside(started).output("cat /workspace/file") == "kept"


async def test_a_start_that_was_cut_off_is_undone_at_adoption(alone: Bench) -> None:
    need(alone.subject.can_outlive, "life beyond its driver")
    stopped = await stopped_one(alone)
    lost = await alone.driver.start(stopped, alone.subject.template, {})  # the daemon dies before it writes this
    before = processes(alone, lost)
    await alone.restart()
    assert await alone.driver.adopt(stopped)
    await until(lambda: not any(process.alive for process in before))
    started = await alone.driver.start(stopped, alone.subject.template, {})
    assert await Inside(started).health() == 200


async def test_a_stopped_sandbox_without_its_disk_is_dead(alone: Bench) -> None:
    need(alone.subject.can_outlive, "life beyond its driver")
    stopped = await stopped_one(alone)
    for image in alone.subject.directory.glob("disks/kit-*.img"):
        image.unlink()
    with pytest.raises(CoveError) as caught:
        await alone.driver.start(stopped, alone.subject.template, {})
    assert caught.value.code == "SANDBOX_NOT_FOUND"
    await alone.restart()
    assert not await alone.driver.adopt(stopped)
    await nothing_remains(alone.subject, stopped)


async def test_stops_and_starts_of_many_at_once(alone: Bench) -> None:
    need(alone.driver.capabilities.stop_start, "stop and start")
    records = await asyncio.gather(*(alone.create() for _ in range(min(8, alone.subject.burst))))
    stopped = await asyncio.gather(*(alone.driver.stop(record) for record in records))
    started = await asyncio.gather(*(alone.driver.start(one, alone.subject.template, {}) for one in stopped))
    assert await asyncio.gather(*(Inside(record).health() for record in started)) == [200] * len(started)


async def test_wait_returns_at_the_end_of_the_sandbox(bench: Bench) -> None:
    record = await bench.create()
    waiting = [asyncio.create_task(bench.driver.wait(record)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    if bench.subject.has_processes:
        os.kill(record.pid, signal.SIGKILL)
    else:
        await bench.driver.destroy(record)
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    await asyncio.wait_for(bench.driver.wait(record), 1)


async def test_one_that_was_killed_when_it_was_out_of_memory_has_a_reason(bench: Bench) -> None:
    need(bench.subject.survives_oom and bench.subject.runs_programs, "agent that is killed apart from programs")
    record = await bench.create()
    assert (await Inside(record).run("x = bytearray(400_000_000)", "python"))["exit_code"] == 137
    os.kill(record.pid, signal.SIGKILL)  # as the kernel does when nothing else is left to be ended
    await asyncio.wait_for(bench.driver.wait(record), 10)
    assert await bench.driver.limit_at_end(record) == f"memory {SMALL.memory_mb} MiB"


async def test_what_dies_outside_our_hands_is_not_found(bench: Bench) -> None:
    record = await bench.create()
    if bench.subject.has_processes:
        os.kill(record.pid, signal.SIGKILL)
        await asyncio.wait_for(bench.driver.wait(record), 10)
        assert await bench.driver.limit_at_end(record) == ""
    else:
        await bench.driver.destroy(record)
    for call in (bench.driver.usage, bench.driver.pause, bench.driver.resume):
        with pytest.raises(CoveError) as caught:
            await call(record)
        assert caught.value.code == "SANDBOX_NOT_FOUND"


async def test_use_is_measured(bench: Bench) -> None:
    record = await bench.create()
    usage = await bench.driver.usage(record)
    assert usage.oom_kills == 0
    need(bench.subject.runs_programs, "programs")
    await Inside(record).output("x = bytearray(50_000_000); len([i for i in range(100_000)])", "python")
    busy = await bench.driver.usage(record)
    assert 50_000_000 < busy.memory_bytes <= busy.memory_peak_bytes <= SMALL.memory_mb * 2**20
    assert usage.cpu_seconds < busy.cpu_seconds < 30
    assert 2 <= busy.pids <= SMALL.pids
    assert 0 < (busy.disk_bytes or 0) <= SMALL.disk_mb * 2**20


async def test_a_sandbox_is_adopted_by_the_next_driver(alone: Bench) -> None:
    need(alone.subject.can_outlive, "life beyond its driver")
    record = await alone.create()
    await Inside(record).output("kept = 41", "python")
    await alone.restart()
    assert await Inside(record).output("print(kept + 1)", "python") == "42"
    assert await alone.driver.adopt(record)
    assert await alone.driver.adopt(record)
    assert (await alone.driver.usage(record)).pids >= 2
    before = processes(alone, record)
    waiting = asyncio.create_task(alone.driver.wait(record))
    await alone.driver.destroy(record)
    await asyncio.wait_for(waiting, 10)
    assert [process for process in before if process.alive] == []
    await nothing_remains(alone.subject, record)


async def test_a_sandbox_can_be_destroyed_by_a_driver_that_never_saw_it(alone: Bench) -> None:
    need(alone.subject.can_outlive, "life beyond its driver")
    record = await alone.create()
    before = processes(alone, record)
    await alone.driver.pause(record)
    await alone.restart()
    await alone.driver.destroy(record)
    assert [process for process in before if process.alive] == []
    await nothing_remains(alone.subject, record)


async def test_ids_of_adopted_sandboxes_are_not_given_again(alone: Bench) -> None:
    need(alone.subject.can_outlive, "life beyond its driver")
    first = await alone.create()
    await alone.restart()
    assert await alone.driver.adopt(first)
    second = await alone.create()
    assert alone.subject.user_of(first) != alone.subject.user_of(second)


async def test_a_dead_sandbox_is_not_adopted_and_its_remains_go(alone: Bench) -> None:
    record = await alone.create()
    if alone.subject.has_processes:
        os.kill(record.pid, signal.SIGKILL)
        await asyncio.wait_for(alone.driver.wait(record), 10)
        assert alone.subject.remains_of(record)
    await alone.restart()
    assert not await alone.driver.adopt(record)
    await nothing_remains(alone.subject, record)


async def test_a_recycled_pid_is_not_mistaken(bench: Bench) -> None:
    need(bench.subject.has_processes, "processes")
    record = await bench.create()
    await bench.driver.destroy(record)
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            started = start_time_of(other.pid)
            mistaken = record.model_copy(update={"pid": other.pid, "pid_started": started - 1})
            assert not await bench.driver.adopt(mistaken)
            await bench.driver.destroy(mistaken)
            assert other.poll() is None
        finally:
            other.kill()


async def test_sweep_removes_what_is_unknown_and_nothing_else(alone: Bench) -> None:
    need(alone.subject.can_outlive, "remains")
    known, unknown = await alone.create(), await alone.create()
    lost = processes(alone, unknown)
    await alone.restart(keeps_ready=True)
    assert await alone.driver.adopt(known)
    await alone.driver.sweep(frozenset({known.sandbox_id}))
    await alone.driver.sweep(frozenset({known.sandbox_id}))
    await until(lambda: not any(process.alive for process in lost))
    await nothing_remains(alone.subject, unknown)
    assert await Inside(known).health() == 200


async def test_an_id_is_used_once(bench: Bench) -> None:
    need(bench.subject.has_processes, "check of ids")
    record = await bench.create()
    with pytest.raises(CoveError) as caught:
        await bench.driver.create(
            spec_of(bench.subject).model_copy(update={"sandbox_id": record.sandbox_id}), bench.subject.template
        )
    assert caught.value.code == "CONFLICT"
    assert await Inside(record).health() == 200


def broken_templates(whole: TemplateManifest) -> list[tuple[TemplateManifest, str]]:
    return [
        (whole.model_copy(update={"digest": "bad1", "layers": ("/nonexistent/layer",)}), "/nonexistent/layer"),
        (whole.model_copy(update={"digest": "bad2", "layers": ("/nonexistent/a", *whole.layers)}), "/nonexistent/a"),
        (whole.model_copy(update={"digest": "bad3", "python": "/usr/bin/no-python"}), "/usr/bin/no-python"),
    ]


async def test_a_create_that_fails_names_the_cause_and_leaves_nothing(alone: Bench) -> None:
    need(alone.subject.runs_programs, "templates")
    for template, cause in broken_templates(alone.subject.template):
        with pytest.raises(CoveError) as caught:
            await alone.driver.create(spec_of(alone.subject), template)
        assert caught.value.code == "SANDBOX_START_FAILED"
        assert cause in caught.value.message
        assert caught.value.remedy
    assert await Inside(await alone.create()).health() == 200


async def test_a_path_that_is_too_long_for_sockets_is_refused(alone: Bench) -> None:
    need(alone.subject.runs_programs, "check of paths")
    driver = alone.subject.open(alone.subject.directory / ("d" * 100))
    try:
        with pytest.raises(CoveError) as caught:
            await driver.create(spec_of(alone.subject), alone.subject.template)
    finally:
        await driver.close()
    assert "too long" in caught.value.message
    assert "--data-dir" in caught.value.remedy


async def test_a_create_that_is_given_up_leaves_nothing(alone: Bench) -> None:
    need(alone.subject.has_processes, "steps to be interrupted at")
    await alone.driver.warm(alone.subject.template)
    given_up = 0
    for milliseconds in alone.subject.moments:
        try:
            async with asyncio.timeout(milliseconds / 1000):
                await alone.create()
        except TimeoutError:
            given_up += 1
    assert given_up >= 3
    if alone.subject.has_fork_server:
        assert len(alone.subject.launchers()) == 1  # it was not lost on the way


async def test_creates_that_are_given_up_while_they_queue_harm_no_one(alone: Bench) -> None:
    await alone.driver.warm(alone.subject.template)
    tasks = [asyncio.create_task(alone.create()) for _ in range(alone.subject.burst)]
    async with asyncio.timeout(30):
        while not alone.made:
            await asyncio.sleep(0)
    for task in tasks[1::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result for result in results[::2] if not isinstance(result, SandboxRecord)] == []
    assert await Inside(await alone.create()).health() == 200


async def test_a_burst_leaves_nothing(alone: Bench) -> None:
    records = await asyncio.gather(*(alone.create() for _ in range(alone.subject.burst)))
    assert len({record.socket_path for record in records}) == alone.subject.burst
    assert await asyncio.gather(*(Inside(record).health() for record in records)) == [200] * alone.subject.burst
    before = [process for record in records for process in processes(alone, record)]
    await asyncio.gather(*(alone.driver.destroy(record) for record in records))
    assert [process for process in before if process.alive] == []


async def test_close_ends_what_the_driver_holds_and_sandboxes_go_on(alone: Bench) -> None:
    need(alone.subject.can_outlive, "life beyond its driver")
    await alone.restart(keeps_ready=True)
    record = await alone.create()
    await until(lambda: bool(alone.subject.kept(alone.made)))
    servers = alone.subject.kept(alone.made)
    await alone.driver.close()
    await alone.driver.close()
    await until(lambda: not any(process.alive for process in servers))
    assert await Inside(record).output("echo alive") == "alive"


async def test_sandboxes_that_shall_not_outlive_their_host_end_with_it(alone: Bench) -> None:
    need(alone.subject.has_processes, "processes")
    driver = alone.subject.open(outlive_host=False)
    record = await driver.create(spec_of(alone.subject), alone.subject.template)
    alone.made.append(record)
    await Inside(record).output(STUBBORN)
    before = processes(alone, record)
    await driver.close()
    await until(lambda: not any(process.alive for process in before))
