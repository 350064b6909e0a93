"""The `runsc` of this machine: found, checked, and asked for its version."""

import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cove.models.errors import CoveError, error

VARIABLE: Final = "COVE_RUNSC"
OLDEST: Final = 20230601
"""Earlier ones lack systrap as the default platform, and do not start on current kernels."""

INSTALL: Final = "Install it as root with scripts/install-runsc.sh, or name a newer one in COVE_RUNSC."
_VERSION_SECONDS: Final = 10
_VERSION: Final = re.compile(r"^runsc version \S*?(20[0-9]{6})", re.MULTILINE)
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Runsc:
    """A `runsc` that may be used.

    Attributes:
        path: absolute, without links.
        version: its release date as a number, for example 20240729.
        rootless: started by an ordinary user.
    """

    path: str
    version: int
    rootless: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """What is the same for every call, and part of what a checkpoint depends on.

        The network is the sandbox's own kernel's, over the wire that `cove.drivers.gvisor.wire` makes; the root
        filesystem is the host's overlay, so none of runsc's own; the process that serves files (gofer) is apart from
        the one that is the kernel; cgroups are the driver's.
        """
        flags = (
            *("--platform=systrap", "--network=sandbox", "--host-uds=create", "--overlay2=none", "--ignore-cgroups"),
            *("--directfs=false", "--net-raw=false"),
        )
        return (*flags, "--rootless") if self.rootless else flags

    def command(self, state: Path, *arguments: str) -> tuple[str, ...]:
        """A command line; `state` is the directory where runsc keeps what it knows of the one sandbox."""
        return (self.path, f"--root={state}", *self.flags, *arguments)


def find_runsc() -> Runsc:
    """The one that COVE_RUNSC names, or else the first on PATH.

    Raises:
        CoveError: ISOLATION_UNAVAILABLE: there is none, others may replace it, or it is too old or broken.
    """
    named = os.environ.get(VARIABLE, "")
    if named and not os.path.isabs(named):
        raise unavailable(f"{VARIABLE} is not an absolute path: {named!r}.", "Name the program with its whole path.")
    found = named or shutil.which("runsc", path=os.environ.get("PATH") or _PATH)
    if not found:
        raise unavailable("gVisor is not installed: there is no runsc on PATH.", INSTALL)
    try:
        path = Path(found).resolve(strict=True)
        _expect_trusted(path)
    except OSError as problem:
        raise unavailable(f"{found} cannot be used: {problem.strerror}.", INSTALL) from problem
    return Runsc(str(path), _version_of(path), rootless=os.geteuid() != 0)


def unavailable(message: str, remedy: str) -> CoveError:
    """That this driver cannot be used on this machine."""
    return error("ISOLATION_UNAVAILABLE", message, remedy=remedy)


def _expect_trusted(path: Path) -> None:
    """Neither the file nor a directory above may be changed by anybody but root and this user."""
    for part in (path, *path.parents):
        about = part.stat()
        if about.st_uid not in (0, os.geteuid()) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise unavailable(
                f"{path} is not used: others than its owner may change {part}.",
                f"chmod go-w {part}; chown root {part}; or name another in {VARIABLE}.",
            )
    if not os.access(path, os.X_OK) or not path.is_file():
        raise unavailable(f"{path} is not a program.", INSTALL)


def _version_of(path: Path) -> int:
    try:
        done = subprocess.run(
            [str(path), "--version"], capture_output=True, timeout=_VERSION_SECONDS, env={"PATH": _PATH}, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise unavailable(f"{path} does not run: {problem}.", INSTALL) from problem
    found = _VERSION.search(done.stdout[:4096].decode(errors="replace"))
    if done.returncode != 0 or found is None:
        raise unavailable(f"{path} does not tell its version: it is broken, or not gVisor's.", INSTALL)
    if int(found[1]) < OLDEST:
        raise unavailable(f"{path} is of {found[1]}; {OLDEST} is the oldest that is used.", INSTALL)
    return int(found[1])
