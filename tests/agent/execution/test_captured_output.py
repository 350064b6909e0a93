"""Bounded output."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cove.agent.execution.output import KEPT_EXECUTIONS, MAX_FILE_BYTES, Capture, OutputFiles

if TYPE_CHECKING:
    from tests.agent.execution.conftest import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]


async def test_output_over_the_cap(sandbox: Sandbox) -> None:
    answer = await sandbox.python("print('ä' * 1000)", max_output_bytes=101)
    assert answer.stdout_truncated
    assert answer.stdout.startswith("ä" * 50 + "\n[stdout truncated: the first 101 of 2001 bytes shown; more in ")
    assert answer.stdout_file is not None
    path = Path(answer.stdout_file)
    assert path.read_text() == "ä" * 1000 + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not answer.stderr_truncated
    assert answer.stderr_file is None


async def test_output_of_exactly_the_cap(sandbox: Sandbox) -> None:
    answer = await sandbox.run("bash", "printf 12345 >&2", max_output_bytes=5)
    assert (answer.stderr, answer.stderr_truncated, answer.stderr_file) == ("12345", False, None)


@pytest.mark.parametrize("language", ["bash", "python"])
async def test_flood_does_not_grow_this_process(sandbox: Sandbox, language: str) -> None:
    code = {
        "bash": "head -c 400000000 /dev/zero",
        "python": "import os\nb = bytes(1000000)\nfor _ in range(400): os.write(1, b)",
    }[language]
    before = resident_bytes()
    answer = await sandbox.run(language, code, timeout=40)
    assert answer.exit_code == 0
    assert answer.stdout_truncated
    assert "of 400000000 bytes" in answer.stdout[-300:]
    assert answer.stdout_file is not None
    assert Path(answer.stdout_file).stat().st_size == MAX_FILE_BYTES
    assert resident_bytes() - before < 24 * 2**20


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def test_undecodable_bytes_are_replaced() -> None:
    capture = Capture(100, lambda: None)
    capture.write(b"a\xffb\xe2\x82")
    capture.write(b"\xac")
    assert capture.finish("stdout").text == "a\ufffdb€"


def test_output_without_room_for_a_file() -> None:
    capture = Capture(3, lambda: None)
    capture.write(b"abcdef")
    captured = capture.finish("stdout")
    assert captured.text == "abc\n[stdout truncated: the first 3 of 6 bytes shown; the rest was discarded]\n"
    assert captured.file is None


def test_old_files_are_removed(tmp_path: Path) -> None:
    files = OutputFiles(tmp_path / "private" / "output")
    for number in range(KEPT_EXECUTIONS + 3):
        assert create(files, f"e{number}") is not None
    names = {path.name for path in (tmp_path / "private" / "output").iterdir()}
    assert len(names) == KEPT_EXECUTIONS
    assert "e0.stdout" not in names


def test_nothing_is_followed_or_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "private" / "output"
    files = OutputFiles(folder)
    assert create(files, "e1") is not None
    target = tmp_path / "target"
    (folder / "e2.stdout").symlink_to(target)
    assert create(files, "e2") is None
    assert not target.exists()
    assert create(files, "e1") is None
    folder.chmod(0o777)
    assert create(files, "e3") is None
    folder.chmod(0o700)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert create(files, "e4") is None


def create(files: OutputFiles, execution_id: str) -> str | None:
    created = files.create(execution_id, "stdout")
    if created is None:
        return None
    os.close(created[0])
    return created[1]
