"""A data directory has at most one program of each kind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cove.host.claims import claim, claimed_by
from cove.models.errors import CoveError

PROGRAM = """
import sys
from pathlib import Path
from cove.host.claims import claim
with claim(Path(sys.argv[1]), who="tester", role=sys.argv[2]):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run" / "test.lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has it."""
    command = [sys.executable, "-c", PROGRAM, str(lock), "child"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"claimed\n"
        yield process
        process.kill()


def test_the_second_is_refused_and_told_where(lock: Path, holder: subprocess.Popen[bytes]) -> None:
    with (
        pytest.raises(CoveError, match=f"Another tester runs on {lock.parent.parent}") as raised,
        claim(lock, who="tester"),
    ):
        pass
    assert raised.value.code == "CONFLICT"


def test_nobody_else_can_hold_the_lock(lock: Path) -> None:
    lock.parent.mkdir()
    lock.touch(0o644)
    with claim(lock, who="tester"):
        assert lock.stat().st_mode & 0o777 == 0o600


def test_a_claim_ends_with_its_block(lock: Path) -> None:
    with claim(lock, who="tester"):
        pass
    with claim(lock, who="tester"):
        pass


def test_a_claim_ends_with_its_process(lock: Path, holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait(10)
    assert claimed_by(lock, role="child") is None
    with claim(lock, who="tester"):
        pass


def test_who_has_it_in_which_role(lock: Path, holder: subprocess.Popen[bytes]) -> None:
    assert claimed_by(lock, role="another") is None
    pidfd = claimed_by(lock, role="child")
    assert pidfd is not None
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert holder.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 1, "role": "child"}', "null"])
def test_a_note_that_cannot_be_read_names_nobody(lock: Path, note: str) -> None:
    lock.parent.mkdir()
    assert claimed_by(lock, role="child") is None
    lock.write_text(note)
    assert claimed_by(lock, role="child") is None
