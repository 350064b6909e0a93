"""How a process ended, as its pidfd tells anybody."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from cove.linux.exit_status import exit_status


@pytest.fixture
def started() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with subprocess.Popen(["sh", "-c", "read line; exit 3"], stdin=subprocess.PIPE) as process:
        pidfd = os.pidfd_open(process.pid)
        yield process, pidfd
        os.close(pidfd)
        process.kill()


@pytest.fixture(autouse=True)
def told_by_the_kernel() -> None:
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 15):
        pytest.skip("needs Linux 6.15")


def test_it_is_known_when_the_process_is_no_more(started: tuple[subprocess.Popen[bytes], int]) -> None:
    process, pidfd = started
    assert exit_status(pidfd) is None
    process.communicate(b"go\n")
    status = exit_status(pidfd)
    assert status is not None
    assert (os.WIFEXITED(status), os.WEXITSTATUS(status)) == (True, 3)


def test_signals_are_told(started: tuple[subprocess.Popen[bytes], int]) -> None:
    process, pidfd = started
    process.kill()
    process.wait(10)
    status = exit_status(pidfd)
    assert status is not None
    assert (os.WIFSIGNALED(status), os.WTERMSIG(status)) == (True, signal.SIGKILL)


def test_what_is_no_pidfd_has_none(started: tuple[subprocess.Popen[bytes], int]) -> None:
    assert exit_status(0) is None
