"""Landlock, tried in a real process: root itself, for whom no permission of a file is a wall."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cove.linux import landlock

ATTEMPTS = """
import errno, json, os, signal, socket, sys
from cove.linux import landlock
from cove.linux.privileges import forbid_new_privileges
def attempt(action):
    try:
        action()
    except OSError as problem:
        return errno.errorcode[problem.errno]
    return "ok"
def write(path):
    with open(path, "w") as file:
        file.write("x")
def connect():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(chr(0) + sys.argv[3])
mine, other = sys.argv[1] + "/mine", sys.argv[1] + "/other"
if sys.argv[2] == "restricted":
    forbid_new_privileges()
    landlock.restrict_changes({mine: landlock.CHANGE, "/dev": landlock.WRITE}, landlock.abi())
print(json.dumps({
    "make there": attempt(lambda: write(other + "/new")),
    "overwrite there": attempt(lambda: write(other + "/old")),
    "truncate there": attempt(lambda: os.truncate(other + "/old", 0)),
    "move in from there": attempt(lambda: os.rename(other + "/moved", mine + "/moved")),
    "remove there": attempt(lambda: os.unlink(other + "/removed")),
    "link there": attempt(lambda: os.symlink("x", other + "/link")),
    "read there": attempt(lambda: open(other + "/old").read()),
    "make": attempt(lambda: write(mine + "/new")),
    "move": attempt(lambda: os.rename(mine + "/new", mine + "/below/new")),
    "truncate": attempt(lambda: os.truncate(mine + "/below/new", 0)),
    "remove": attempt(lambda: os.unlink(mine + "/below/new")),
    "device": attempt(lambda: write("/dev/null")),
    "memory": attempt(lambda: write(f"/proc/self/fd/{os.memfd_create('x')}")),
    "program": attempt(lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)),
    "signal outside": attempt(lambda: os.kill(os.getppid(), 0)),
    "abstract socket outside": attempt(connect),
}))
"""
OUTSIDE = ("make there", "overwrite there", "truncate there", "move in from there", "remove there", "link there")
REACHED = ("signal outside", "abstract socket outside")
STAYS = ("read there", "make", "move", "truncate", "remove", "device", "memory", "program")


@pytest.fixture(autouse=True)
def with_landlock() -> None:
    if landlock.abi() < landlock.OLDEST_ABI:
        pytest.skip(f"this kernel's Landlock is {landlock.abi() or 'not in force'}; {landlock.OLDEST_ABI} is needed")


def tried(directory: Path, mode: str) -> dict[str, str]:
    (directory / "mine/below").mkdir(parents=True)
    (directory / "other").mkdir()
    for name in ("old", "moved", "removed"):
        (directory / "other" / name).write_text("old")
    abstract = f"cove-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{abstract}")
        listener.listen()
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, str(directory), mode, abstract], capture_output=True, text=True, timeout=30
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_changes_outside_of_the_given_places(tmp_path: Path) -> None:
    answers = tried(tmp_path, "restricted")
    assert {answers[name] for name in OUTSIDE} <= {"EACCES", "EXDEV"}
    assert {name: answers[name] for name in STAYS} == dict.fromkeys(STAYS, "ok")
    assert (tmp_path / "other/old").read_text() == "old"
    if landlock.abi() >= 6:
        assert {answers[name] for name in REACHED} == {"EPERM"}


def test_without_it_all_of_that_works(tmp_path: Path) -> None:
    """The control."""
    answers = tried(tmp_path, "plain")
    assert set(answers.values()) == {"ok"}
