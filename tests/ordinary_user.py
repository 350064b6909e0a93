"""A Python for an ordinary user of this machine, with all that the tests' own can import."""

import contextlib
import os
import secrets
import shutil
import site
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

USER = 12345
"""No account is needed to be it."""

_SOURCE = Path(__file__).parents[1] / "src"
# The first exec may still be allowed to what the user is not: the interpreter has to start itself.
_TRIAL = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import cove.cli.main, httpx2"], check=True)
"""


class Account(NamedTuple):
    """A user that exists, with subordinate ids (subuid(5)), and control groups that are delegated to it.

    Attributes:
        groups: what is delegated.
        start: where its programs start; in version 2 a group below, as after an earlier host daemon.
    """

    name: str
    uid: int
    subordinate: range
    groups: tuple[Path, ...]
    start: tuple[Path, ...]

    @property
    def enter(self) -> tuple[str, ...]:
        """The start of a command line: in its groups, still as root."""
        files = " ".join(f"{group}/cgroup.procs" for group in self.start)
        return ("sh", "-c", f'for file in {files}; do echo $$ > $file; done; exec "$@"', "enter")


@contextmanager
def account() -> Generator[Account]:
    """Make one; it is gone at the end. Skips the test where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a user")
    missing = [tool for tool in ("useradd", "userdel", "newuidmap", "newgidmap") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (packages passwd and uidmap)")
    number = 20000 + secrets.randbelow(10000)
    name, first = f"cove-test-{number}", 1_000_000_000 + number * 10000
    files = (Path("/etc/subuid"), Path("/etc/subgid"))
    try:
        make = ["useradd", "--uid", str(number), "--no-create-home", "--shell", "/usr/sbin/nologin", name]
        subprocess.run(make, check=True, capture_output=True, timeout=20)
        add = ["--add-subuids", f"{first}-{first + 4999}", "--add-subgids", f"{first}-{first + 4999}"]
        for file in files:
            _remove_lines(file, name)  # those that useradd has given
        subprocess.run(["usermod", *add, name], check=True, capture_output=True, timeout=20)
        with _delegated_groups(name, number) as (groups, start):
            yield Account(name, number, range(first, first + 5000), groups, start)
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True, timeout=20)
        for file in files:
            _remove_lines(file, name)


def _remove_lines(file: Path, name: str) -> None:
    if file.exists():
        kept = [line for line in file.read_text().splitlines(keepends=True) if not line.startswith(f"{name}:")]
        file.write_text("".join(kept))


@contextmanager
def _delegated_groups(name: str, uid: int) -> Generator[tuple[tuple[Path, ...], tuple[Path, ...]]]:
    """A group in each hierarchy, as a service manager hands one to a user (cgroups(7), "Cgroups delegation")."""
    made: list[Path] = []
    start: list[Path] = []
    try:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields, _, tail = line.partition(" - ")
            if tail.split()[0] in ("cgroup", "cgroup2") and "name=" not in tail and "cpuset" not in tail:
                group = Path(fields.split()[4]) / name
                with contextlib.suppress(OSError):
                    group.mkdir()
                    made.append(group)
                    start.append(group / "hostd" if tail.startswith("cgroup2") else group)
                    start[-1].mkdir(exist_ok=True)
                    for one in {group, start[-1]}:
                        for path in (one, *one.glob("cgroup.[pst]*"), *one.glob("tasks")):
                            os.chown(path, uid, uid)
        if not made:
            pytest.skip("no control group can be made here")
        yield tuple(made), tuple(start)
    finally:
        for group in made:
            for child in sorted(group.rglob("*"), reverse=True):
                if child.is_dir():
                    child.rmdir()
            group.rmdir()


def ordinary_python(directory: Path, user: int = USER) -> tuple[str, ...]:
    """The start of its command line; makes it in `directory`. Skips the test where there is none."""
    if os.geteuid() != 0:
        return (sys.executable,)
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv (util-linux) to become an ordinary user")
    problem = ""
    for number, base in enumerate(dict.fromkeys((str(Path(sys.executable).resolve()), "/usr/bin/python3"))):
        target = directory / f"python{number}"
        made = subprocess.run([base, "-m", "venv", "--without-pip", str(target)], capture_output=True, check=False)
        if made.returncode == 0:
            packages = next(target.glob("lib/python3*/site-packages"))
            (packages / "all.pth").write_text("\n".join([str(_SOURCE), *site.getsitepackages()]) + "\n")
            command = (*become, str(target / "bin/python"))
            tried = subprocess.run([*command, "-c", _TRIAL], capture_output=True, check=False, timeout=30)
            if tried.returncode == 0:
                return command
            problem = tried.stderr.decode(errors="replace").strip()[-300:]
    pytest.skip(f"no Python here can be used by an ordinary user: {problem}")
