"""Logs that are read by byte position: characters, truncation, bounds."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cove.agent.execution.output import OutputFiles
from cove.agent.execution.output_log import TAIL_BYTES, OutputBudget, OutputLog

PLENTY = 1024 * 1024
Make = Callable[..., OutputLog]


def nothing_to_free() -> bool:
    return False


@pytest.fixture
def make(tmp_path: Path) -> Make:
    files = OutputFiles(tmp_path / "private" / "output")

    def made(limit: int = PLENTY, budget: int = PLENTY, *, files: OutputFiles | None = files) -> OutputLog:
        def create() -> tuple[int, str] | None:
            return files.create("exec_1", "stdout") if files else None

        return OutputLog(limit, create, budget=OutputBudget(budget, nothing_to_free), changed=lambda: None)

    return made


def read_all(log: OutputLog, size: int) -> str:
    """Everything, in steps of `size` bytes, each of which must get on."""
    text, offset = "", 0
    while offset < log.end:
        part = log.read(offset, size)
        assert part.offset == offset
        assert part.next_offset > offset
        text, offset = text + part.text, part.next_offset
    return text


@pytest.mark.parametrize("limit", [PLENTY, 100, 99, 1, 0])
def test_any_step_gives_the_same_text(make: Make, limit: int) -> None:
    """Characters of one to four bytes, cut by the writer, the reader and the limit."""
    whole = "a\u00e9\N{SNOWMAN}\N{GRINNING FACE}\n" * 30
    data = whole.encode()
    log = make(limit)
    for start in range(0, len(data), 7):
        log.write(data[start : start + 7])
    log.close()
    for size in (4, 5, 13, 4096):
        assert read_all(log, size) == whole
    assert log.end == len(data)


def test_a_character_that_is_not_complete_comes_later(make: Make) -> None:
    log = make()
    log.write(b"ab\xe2\x98")
    assert log.read(0, 100) == ("ab", 0, 2)
    assert log.read(2, 100) == ("", 2, 2)
    log.write(b"\x83")
    assert log.read(2, 100) == ("\N{SNOWMAN}", 2, 5)


def test_bytes_that_are_no_text_do_not_hold_anything_up(make: Make) -> None:
    log = make()
    log.write(b"\xff\xfe\x00ok\xe2")
    assert log.read(0, 100) == ("\ufffd\ufffd\0ok", 0, 5)
    log.close()
    assert log.read(5, 100) == ("\ufffd", 5, 6)
    assert log.read(1, 2) == ("\ufffd\0", 1, 3)


def test_a_position_behind_the_end(make: Make) -> None:
    log = make()
    log.write(b"abc")
    assert log.read(10, 100) == ("", 10, 10)
    log.close()
    assert log.read(10, 100) == ("", 10, 10)


def test_what_is_not_kept_is_skipped(make: Make) -> None:
    log = make(limit=4, files=None)
    log.write(b"12345678")
    assert log.read(0, 100) == ("1234", 0, 4)
    assert log.read(4, 100) == ("", 4, 4)
    log.close()
    assert log.read(4, 100) == ("", 8, 8)


def test_a_character_cut_by_the_limit_does_not_hold_the_reader_up(make: Make) -> None:
    log = make(limit=4, files=None)
    log.write(b"123\xe2\x98\x83 lost")
    part = log.read(0, 100)
    assert part == ("123", 0, 3)
    assert log.read(3, 100) == ("\ufffd", 3, 4)


def test_the_budget_counts_and_the_file_takes_the_rest(make: Make) -> None:
    log = make(budget=10)
    log.write(b"0123456")
    log.write(b"789abcdef")
    log.write(b"ghi")
    assert log.kept(0, 100) == b"0123456789"
    log.close()
    assert read_all(log, 4) == "0123456789abcdefghi"
    assert log.truncated


def test_freed_memory_can_be_taken_again(make: Make) -> None:
    freed: list[int] = []

    def free() -> bool:
        if freed:
            return False
        freed.append(6)
        budget.give(6)
        return True

    budget = OutputBudget(10, free)
    assert budget.take(8) == 8
    assert budget.take(8) == 8
    assert budget.take(8) == 0


def test_the_tail_is_the_last_part(make: Make) -> None:
    log = make()
    log.write(b"x" * 10_000 + "\N{SNOWMAN}".encode() * 2000)
    tail = log.tail()
    assert tail == "\N{SNOWMAN}" * (TAIL_BYTES // 3)
    log.note("the end")
    assert log.tail().endswith("\N{SNOWMAN}\nthe end\n")


def test_a_file_that_was_swapped_is_not_followed(make: Make, tmp_path: Path) -> None:
    """Programs of the sandbox can write to the directory: pipes, links and shorter files must neither hang nor leak."""
    secret = tmp_path / "secret"
    secret.write_text("secret" * 10)
    path = tmp_path / "private" / "output" / "exec_1.stdout"
    for swap in (lambda: os.mkfifo(path), lambda: path.symlink_to(secret), path.touch, lambda: None):
        path.unlink(missing_ok=True)
        log = make(limit=2)
        log.write(b"1234567890")
        log.close()
        path.unlink()
        swap()
        part = log.read(2, 100)
        assert part == ("", 10, 10)


def test_a_flood_stays_bounded(make: Make) -> None:
    log = make(limit=1000, files=None)
    for _ in range(2000):
        log.write(b"x" * 65536)
    assert len(log.kept(0, 1 << 30)) == 1000
    assert log.total == 2000 * 65536
    assert len(log.tail()) == TAIL_BYTES
