"""Control groups: finding the hierarchies, and really limiting a process."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cove.host.cgroups import CgroupMode, Cgroups, Hierarchies, detect, move_into_leaf
from cove.models.errors import CoveError
from cove.models.limits import MIB, Limits

NAME = "test-cgroups"


def write_facts(directory: Path, mounts: list[str], membership: str) -> tuple[Path, Path]:
    mountinfo, cgroup = directory / "mountinfo", directory / "cgroup"
    mountinfo.write_text("".join(f"30 25 0:26 / {line}\n" for line in mounts))
    cgroup.write_text(membership)
    return mountinfo, cgroup


def test_version_1_hierarchies_are_found_below_the_own_group(tmp_path: Path) -> None:
    (tmp_path / "memory/mine").mkdir(parents=True)
    (tmp_path / "cpu").mkdir()
    facts = write_facts(
        tmp_path,
        [
            f"{tmp_path}/memory rw,relatime - cgroup cgroup rw,memory",
            f"{tmp_path}/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct",
        ],
        "4:memory:/mine\n1:cpu,cpuacct:/\n",
    )
    found = detect(*facts)
    assert found.mode is CgroupMode.V1
    assert found.v1 == {"memory": tmp_path / "memory/mine/cove", "cpu": tmp_path / "cpu/cove"}
    assert Cgroups(found).enforceable == {"memory_mb", "vcpu", "cpu_share"}


def test_version_2_controllers_are_found(tmp_path: Path) -> None:
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2/cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    facts = write_facts(tmp_path, [f"{tmp_path}/v2 rw - cgroup2 cgroup2 rw,nsdelegate"], "0::/user.slice\n")
    found = detect(*facts)
    assert found.mode is CgroupMode.V2
    assert Cgroups(found).enforceable == {"memory_mb", "pids", "vcpu", "cpu_share"}


def test_on_a_hybrid_host_limits_are_version_1(tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2/cgroup.controllers").write_text("\n")
    facts = write_facts(
        tmp_path,
        [f"{tmp_path}/pids rw - cgroup cgroup rw,pids", f"{tmp_path}/v2 rw - cgroup2 cgroup2 rw"],
        "8:pids:/\n0::/\n",
    )
    found = detect(*facts)
    assert found.mode is CgroupMode.HYBRID
    assert Cgroups(found).enforceable == {"pids"}


def test_without_hierarchies_nothing_is_claimed(tmp_path: Path) -> None:
    cgroups = Cgroups(detect(*write_facts(tmp_path, [], "0::/\n")))
    assert cgroups.mode is CgroupMode.NONE
    assert cgroups.enforceable == frozenset()
    assert cgroups.create(NAME, Limits()) == ()


def test_version_2_limits_are_written(tmp_path: Path) -> None:
    base = tmp_path / "cove"
    controllers = frozenset({"memory", "pids", "cpu"})
    (tmp_path / "cgroup.subtree_control").touch()
    base.mkdir()
    (base / "cgroup.subtree_control").touch()
    cgroups = Cgroups(Hierarchies({}, base, controllers))
    # A plain directory has no control files: the first write says what the kernel would have made.
    with pytest.raises(CoveError) as caught:
        cgroups.create(NAME, Limits())
    assert caught.value.code == "LIMIT_NOT_ENFORCEABLE"
    assert "memory.max" in caught.value.details["path"]
    assert cgroups.names() == set(), "a failed create leaves nothing behind"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


@pytest.mark.parametrize("memory", ["memory.oom_control", "memory.events"])
def test_what_limits_refuse_is_counted_in_both_versions(tmp_path: Path, memory: str) -> None:
    groups = tuple(str(tmp_path / name) for name in ("memory", "pids", "freezer"))
    for group in groups:
        Path(group).mkdir()
    cgroups = Cgroups(Hierarchies({}, None, frozenset()))
    with cgroups.opened_counters(groups) as none:
        assert none == {}
    (tmp_path / "memory" / memory).write_text("oom_kill 3\n")
    (tmp_path / "pids/pids.events").write_text("max 4\n")
    with cgroups.opened_counters(groups) as opened:
        assert {name: os.pread(descriptor, 100, 0) for name, descriptor in opened.items()} == {
            "memory": b"oom_kill 3\n",
            "pids": b"max 4\n",
        }
        assert not any(os.get_inheritable(descriptor) for descriptor in opened.values())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pread(opened["memory"], 1, 0)


@pytest.mark.parametrize(("share", "v1", "v2"), [(100, None, None), (400, "4096", "400"), (1, "10", "1")])
def test_a_share_of_the_processors_is_a_weight_in_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int, v1: str | None, v2: str | None
) -> None:
    monkeypatch.setattr(Path, "mkdir", _as_the_kernel(Path.mkdir))
    Cgroups(Hierarchies({"cpu": tmp_path / "cpu"}, None, frozenset())).create(NAME, Limits(cpu_share=share))
    Cgroups(Hierarchies({}, tmp_path / "v2/cove", frozenset({"cpu"}))).create(NAME, Limits(cpu_share=share))
    assert (tmp_path / "cpu" / NAME / "cpu.shares").read_text() == (v1 or "")
    assert (tmp_path / "v2/cove" / NAME / "cpu.weight").read_text() == (v2 or "")


def _as_the_kernel(mkdir: Callable[..., None]) -> Callable[..., None]:
    """A new group has its control files."""

    def make(path: Path, *arguments: Any, **options: Any) -> None:
        options["parents"] = True
        mkdir(path, *arguments, **options)
        for directory in (path, path.parent):
            for name in ("cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.weight", "cpu.max"):
                (directory / name).touch()
            (directory / "cgroup.subtree_control").touch()

    return make


@pytest.fixture
def cgroups(as_root: None) -> Iterator[Cgroups]:
    found = Cgroups(detect())
    if not found.enforceable:
        pytest.skip("no writable cgroup controller")
    yield found
    found.kill(found.groups_of(NAME))
    found.remove(found.groups_of(NAME))


def test_limits_bite(cgroups: Cgroups) -> None:
    groups = cgroups.create(NAME, Limits(memory_mb=64, pids=16))
    # The child waits for a line, so that it is in its groups before it takes memory.
    code = f"input(); x = bytearray({100 * MIB}); print('survived')"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        cgroups.attach(groups, process.pid)
        output, _ = process.communicate(b"\n", timeout=30)
    assert process.returncode == -9
    assert output == b""
    assert cgroups.usage(groups).oom_kills == 1


def test_the_same_program_survives_without_the_limit(cgroups: Cgroups) -> None:
    groups = cgroups.create(NAME, Limits(memory_mb=512))
    code = f"input(); x = bytearray({100 * MIB}); print('survived')"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        cgroups.attach(groups, process.pid)
        output, _ = process.communicate(b"\n", timeout=30)
    assert output == b"survived\n"
    assert cgroups.usage(groups).memory_peak_bytes > 100 * MIB


def test_a_share_divides_a_processor(cgroups: Cgroups) -> None:
    if "cpu_share" not in cgroups.enforceable:
        pytest.skip("no writable cpu controller")
    preferred, other = spun_together(cgroups, Limits(cpu_share=400), Limits(cpu_share=100))
    assert 2.5 < preferred / other < 6
    first, second = spun_together(cgroups, Limits(), Limits())
    assert 0.6 < first / second < 1.6, "the same without the shares"


def spun_together(cgroups: Cgroups, *limits: Limits) -> list[float]:
    """Processor seconds that programs under these limits get while all of them want the same processor."""
    code = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}]); input()\nwhile True: pass"
    with contextlib.ExitStack() as stack:
        made: list[tuple[str, ...]] = []
        for number, each in enumerate(limits):
            groups = cgroups.create(f"{NAME}-{number}", each)
            stack.callback(cgroups.remove, groups)
            program = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
            stack.enter_context(program)
            stack.callback(program.kill)
            cgroups.attach(groups, program.pid)
            made.append(groups)
            assert program.stdin
            program.stdin.write(b"\n")
            program.stdin.flush()

        def used() -> list[float]:
            return [cgroups.usage(groups).cpu_seconds for groups in made]

        def since(start: list[float]) -> list[float]:
            return [now - then for now, then in zip(used(), start, strict=True)]

        start = used()
        wait_until(lambda: min(since(start)) > 0.1)  # all of them spin by then
        start = used()
        wait_until(lambda: sum(since(start)) > 0.8)
        return since(start)


def wait_until(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_freezing_stops_and_thawing_continues(cgroups: Cgroups) -> None:
    groups = cgroups.create(NAME, Limits())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        cgroups.attach(groups, process.pid)
        cgroups.freeze(groups, frozen=True)
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        cgroups.freeze(groups, frozen=False)
        assert process.stdout.readline() == b"hello\n"
        cgroups.kill(groups)
        assert process.wait(timeout=10) == -9


def test_a_delegated_group_is_emptied_into_a_leaf(cgroups: Cgroups) -> None:
    """Also of what this process has not started itself: a group with processes cannot hand out controllers."""
    made = [Path(group) for group in cgroups.create(NAME, Limits())]
    group = next((group for group in made if (group / "cgroup.max.depth").exists()), None)
    if group is None:
        pytest.skip("no hierarchy of version 2 is mounted here")
    with subprocess.Popen(["sleep", "100"]) as one, subprocess.Popen(["sleep", "100"]) as other:
        try:
            for process in (one, other):
                (group / "cgroup.procs").write_text(str(process.pid))
            move_into_leaf(group)
            assert (group / "cgroup.procs").read_text() == ""
            moved = (group / "hostd/cgroup.procs").read_text().split()
            assert {int(pid) for pid in moved} == {one.pid, other.pid}
        finally:
            for process in (one, other):
                process.kill()
                process.wait(timeout=10)
            cgroups.remove((str(group / "hostd"),))


def test_removal_leaves_nothing(cgroups: Cgroups) -> None:
    groups = cgroups.create(NAME, Limits())
    assert NAME in cgroups.names()
    cgroups.remove(groups)
    assert NAME not in cgroups.names()
    cgroups.remove(groups)
