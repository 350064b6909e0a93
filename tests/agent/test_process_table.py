"""Reading proc(5): names that look like fields, processes that end meanwhile, and the load that follows from it."""

import os
from pathlib import Path

import pytest

from cove.agent.metrics import ResourceUsage
from cove.agent.processes import ProcessTable
from cove.models.limits import Limits

TICKS = os.sysconf("SC_CLK_TCK")


def add_process(root: Path, pid: int, name: str, *, own: int = 0, reaped: int = 0, command: bytes = b"") -> None:
    directory = root / str(pid)
    directory.mkdir(exist_ok=True)
    fields = ["S", "1", *["0"] * 9, str(own), "0", str(reaped), "0", "20", "0", "1", "0", "100", "4096", "10"]
    (directory / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
    (directory / "cmdline").write_bytes(command)


@pytest.mark.parametrize("name", ["plain", "with space", "a) S 1 (b", "((", "))", "é"])
def test_names_may_hold_anything(tmp_path: Path, name: str) -> None:
    add_process(tmp_path, 7, name, command=b"python3\0-c\0print(1)\0")
    (entry,) = ProcessTable(str(tmp_path)).entries()
    assert (entry.pid, entry.name, entry.ppid, entry.status) == (7, name, 1, "sleeping")
    assert entry.command == "python3 -c print(1)"


def test_what_is_no_process_is_left_out(tmp_path: Path) -> None:
    add_process(tmp_path, 1, "init")
    (tmp_path / "2").mkdir()
    (tmp_path / "3").mkdir()
    (tmp_path / "3/stat").write_text("3 (cut")
    (tmp_path / "self").mkdir()
    assert [entry.pid for entry in ProcessTable(str(tmp_path)).entries()] == [1]


def test_long_and_broken_command_lines_are_bounded(tmp_path: Path) -> None:
    add_process(tmp_path, 1, "a", command=b"\xff" * 100_000)
    add_process(tmp_path, 2, "kernel thread")
    first, second = ProcessTable(str(tmp_path)).entries()
    assert first.command == "\ufffd" * 4096
    assert second.command == "[kernel thread]"


def test_load_is_the_share_of_the_limit_since_the_last_question(tmp_path: Path) -> None:
    now = [100.0]
    usage = ResourceUsage(Limits(vcpu=2), str(tmp_path), processes=ProcessTable(str(tmp_path)), clock=lambda: now[0])
    add_process(tmp_path, 1, "init")
    add_process(tmp_path, 2, "busy", own=10 * TICKS)
    now[0] += 10
    assert usage.snapshot()["system"]["cpu"] == {"usage_percent": 50.0, "cores": 2}
    # The busy one ended: what it used is in its parent's account, and nothing is counted twice.
    (tmp_path / "2/stat").unlink()
    add_process(tmp_path, 1, "init", reaped=15 * TICKS)
    now[0] += 10
    assert usage.snapshot()["system"]["cpu"]["usage_percent"] == 25.0
    now[0] += 10
    assert usage.snapshot()["system"]["cpu"]["usage_percent"] == 0.0
