"""A server without privileges has to read its own program: where that lies in a directory of root's alone (Python or
Cove below /root, as `uv tool install` puts them), it gets a view of the file system in which it can.

In a mount namespace of its own (mount_namespaces(7)) an empty directory covers the one that is closed, and only the
directories of the program are put back into it, read-only. Nothing is opened to anybody outside.
"""

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from cove.linux.clone import CLONE_NEWNS, unshare
from cove.linux.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_SLAVE, bind, mount
from cove.models.errors import error


def see_own_program(uid: int, gid: int) -> None:
    """Make what this program may import readable for that user. To be called as root, before becoming it.

    Raises:
        CoveError: INVALID_REQUEST where that cannot be done.
    """
    closed = _closed(_program_directories(), uid, gid)
    if not closed:
        return
    try:
        unshare(CLONE_NEWNS)
        # What the host unmounts later goes here too; what is mounted here stays here.
        mount("none", "/", "", MS_REC | MS_SLAVE)
        for cover, directories in closed.items():
            _cover(cover, directories)
    except OSError as problem:
        covers = ", ".join(closed)
        raise error(
            "INVALID_REQUEST",
            f"Cove's program lies in {covers}, which the server's user cannot enter: {problem.strerror}.",
            remedy="Install Cove and its Python where every user can read them, for example in /opt; or serve as"
            " root: --user root.",
        ) from problem


def _program_directories() -> list[str]:
    """Where modules come from; of nested ones the outermost."""
    import cove

    found = {sys.base_prefix, sys.prefix, *(str(Path(path).parent) for path in cove.__path__)}
    found |= {path for path in sys.path if path and Path(path).is_dir()}
    real = sorted({os.path.realpath(path) for path in found})
    return [path for path in real if not any(path != other and path.startswith(f"{other}/") for other in real)]


def _closed(directories: Iterable[str], uid: int, gid: int) -> dict[str, list[str]]:
    """For each directory that the user cannot enter: those of the program that lie in it."""
    closed: dict[str, list[str]] = {}
    for directory in directories:
        for above in [*reversed(Path(directory).parents)]:
            if not _may_enter(above.stat(), uid, gid):
                closed.setdefault(str(above), []).append(directory)
                break
    return closed


def _may_enter(status: os.stat_result, uid: int, gid: int) -> bool:
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & (stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH))


def _cover(cover: str, directories: list[str]) -> None:
    held = [os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for directory in directories]
    try:
        mount("tmpfs", cover, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k")
        for directory, descriptor in zip(directories, held, strict=True):
            Path(directory).mkdir(mode=0o755, parents=True)
            bind(f"/proc/self/fd/{descriptor}", directory, MS_RDONLY | MS_NOSUID | MS_NODEV)
    finally:
        for descriptor in held:
            os.close(descriptor)
