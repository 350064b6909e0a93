"""Which limit a program ran into: what the kernel counts, what the program printed, what is full."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cove.agent.execution.checks import Checks
from cove.agent.execution.limit_events import MEMORY, PIDS, LimitCounters, LimitEvents, Watch
from cove.agent.execution.outcomes import Outcome, Recording, record
from cove.agent.execution.output import OutputFiles
from cove.models.errors import InvalidRequest
from cove.models.execution import ExecuteRequest
from cove.models.limits import Limits
from cove.models.processes import BackgroundExecute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.agent.execution.conftest import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]

LIMITS = Limits(memory_mb=512, pids=256, open_files=1024)
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
V2 = "low 0\nhigh 0\nmax 70\noom 1\noom_kill {}\noom_group_kill 0\n"


class Kernel:
    """Files as the kernel shows them."""

    def __init__(self, directory: Path, memory: str) -> None:
        self._memory, self._text = directory / "memory", memory
        self._pids = directory / "pids"
        self.count(0, 0)
        self.descriptors = {MEMORY: os.open(self._memory, os.O_RDONLY), PIDS: os.open(self._pids, os.O_RDONLY)}

    def count(self, killed: int, refused: int) -> None:
        self._memory.write_text(self._text.format(killed))
        self._pids.write_text(f"max {refused}\n")


@pytest.fixture(params=[V1, V2], ids=["v1", "v2"])
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path, request.param)
    yield made
    for descriptor in made.descriptors.values():
        os.close(descriptor)


def printed(errors: str = "") -> Recording:
    recording = record("exec_test", 10, OutputFiles())
    recording.stderr.write(errors.encode())
    return recording


async def limit_of(watch: Watch, outcome: Outcome, errors: str = "") -> str | None:
    return (await watch.judged(outcome, printed(errors), seconds=30.0)).limit


async def test_what_the_kernel_counts(kernel: Kernel, tmp_path: Path) -> None:
    events = LimitEvents(LIMITS, str(tmp_path), LimitCounters(kernel.descriptors))
    kernel.count(3, 4)
    with events.watched() as watch:
        assert await limit_of(watch, Outcome(137)) is None
        assert await limit_of(watch, Outcome(124, timed_out=True)) == "time 30 s"
    with events.watched() as watch:
        kernel.count(4, 4)
        assert await limit_of(watch, Outcome(0)) is None
        assert await limit_of(watch, Outcome(1)) == "memory 512 MiB"
    with events.watched() as watch:
        kernel.count(4, 5)
        assert await limit_of(watch, Outcome(1)) == "pids 256"
        ended = await watch.judged(Outcome(124, timed_out=True), printed(), seconds=30.0)
        assert (ended.limit, ended.notes) == ("pids 256", ("stopped by the limit: pids 256",))


async def test_programs_beside_each_other_are_told_apart(kernel: Kernel, tmp_path: Path) -> None:
    events = LimitEvents(LIMITS, str(tmp_path), LimitCounters(kernel.descriptors))
    with events.watched() as one, events.watched() as other:
        kernel.count(1, 1)
        assert await limit_of(other, Outcome(1)) is None, "it may have failed for any reason"
        assert await limit_of(one, Outcome(137)) == "memory 512 MiB"
        assert await limit_of(other, Outcome(137)) is None, "one kill explains one end"
    with events.watched() as next_one:
        assert await limit_of(next_one, Outcome(137)) is None


async def test_without_counters_nothing_is_guessed(tmp_path: Path) -> None:
    events = LimitEvents(LIMITS, str(tmp_path), LimitCounters())
    with events.watched() as watch:
        assert await limit_of(watch, Outcome(137)) is None
        assert await limit_of(watch, Outcome(1), "OSError: [Errno 28] No space left on device") is None
        assert await limit_of(watch, Outcome(1), "socket: Too many open files in system") is None
        assert await limit_of(watch, Outcome(1), "x" * 99 + "\nopen: Too many open files\n") == "open files 1024"


async def test_time_and_output_of_a_sandbox(sandbox: Sandbox) -> None:
    ended = await sandbox.run("bash", "sleep 60", timeout=0.3)
    assert (ended.timed_out, ended.limit) == (True, "time 0.3 s")
    program = await sandbox.executor.background.start_code(
        BackgroundExecute(code="sleep 60", language="bash", timeout=0.3)
    )
    found = sandbox.executor.background.find(program.process_id)
    await found.wait_ended(10)
    assert found.describe().limit == "time 0.3 s"


def test_requests_above_what_the_sandbox_allows() -> None:
    checks = Checks(("bash",), "/", Limits(max_execution_seconds=20, max_output_bytes=2048))
    for seconds in (60.0, 300.0, 1800.0, 86400.0):  # what clients send of themselves
        request = ExecuteRequest(code="", timeout=seconds)
        bounded = checks.bounded(request)
        assert (bounded.timeout, bounded.max_output_bytes) == (20.0, 2048)
    with pytest.raises(InvalidRequest) as refused:
        checks.bounded(ExecuteRequest(code="", timeout=301.0))
    assert refused.value.details == {"field": "timeout", "limit": 20}
    within = ExecuteRequest(code="", timeout=10.0, max_output_bytes=5)
    assert checks.bounded(within) is within
    unlimited = ExecuteRequest(code="", timeout=5000.0)
    assert Checks(("bash",), "/", Limits()).bounded(unlimited) is unlimited
