"""What in a data directory belongs to the server's user, and what stays root's.

A server without privileges writes to a few directories, which are given to it; the data directory itself and all that
sandboxes stand on stay root's, so that it can neither change nor replace them.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from cove.models.errors import CoveError, error
from cove.server.own_view import see_own_program

STORE_NAME: Final = "cove.db"
STORE_DIRECTORY: Final = "store"
OWN_DIRECTORIES: Final = (STORE_DIRECTORY, "keys", "uploads", "builds", "audit", "run/server")
"""Of the server's user, mode 0700."""
_ROOTS: Final = (
    *("layers", "templates", "trust", "authority", "checkpoints"),
    *("run", "run/sandboxes", "run/secrets", "run/sockets", "run/disks", "run/gvisor"),
)
_MOST: Final = 200_000
_DEEPEST: Final = 8
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def give_to_server(data_dir: Path, uid: int, gid: int) -> None:
    """Make and hand over the server's directories, with what is in them; nothing else changes its owner.

    Run it as root, while no server runs there. Directories of earlier versions are brought into this shape in place.

    Raises:
        CoveError: INVALID_REQUEST: the user owns something here that has to be root's, or it cannot be done.
    """
    try:
        for directory in (data_dir, data_dir / "run"):
            directory.mkdir(mode=0o711 if directory == data_dir else 0o755, parents=True, exist_ok=True)
            _keep_for_root(directory, uid)
            directory.chmod(stat.S_IMODE(directory.stat().st_mode) & ~0o022 | 0o011)
        _refuse_foreign(data_dir, uid)
        for name in OWN_DIRECTORIES:
            (data_dir / name).mkdir(mode=0o700, exist_ok=True)
        _move_store(data_dir)
        for name in OWN_DIRECTORIES:
            _give(data_dir / name, uid, gid)
    except OSError as problem:
        raise error(
            "INVALID_REQUEST",
            f"The data directory {data_dir} cannot be prepared for the server's user: {problem.strerror}"
            f" ({problem.filename}).",
            remedy="Choose another with --data-dir, or serve as root: --user root.",
        ) from problem


def become_owner_of_store(data_dir: Path) -> None:
    """For a command of root's that opens the store: go on as the user to whom it belongs, if that is somebody else.

    What such a user has put there is then not opened with root's rights, and files that are made beside the store are
    files that the server can use. There is no way back.
    """
    if os.geteuid() != 0:
        return
    try:
        owner = os.lstat(data_dir / STORE_DIRECTORY)
    except OSError:
        return
    if stat.S_ISDIR(owner.st_mode) and owner.st_uid != 0:
        see_own_program(owner.st_uid, owner.st_gid)
        os.setgroups([])
        os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


def _keep_for_root(directory: Path, uid: int) -> None:
    """Whoever owns a directory can replace what is in it."""
    if directory.stat().st_uid == uid:
        os.chown(directory, 0, 0)


def _refuse_foreign(data_dir: Path, uid: int) -> None:
    for name in _ROOTS:
        with suppress(FileNotFoundError):
            if (data_dir / name).stat().st_uid == uid:
                raise _must_be_roots(data_dir / name)


def _must_be_roots(path: Path) -> CoveError:
    return error(
        "INVALID_REQUEST",
        f"{path} belongs to the server's user, who could then change what sandboxes stand on.",
        remedy=f"If nobody else has had it: chown -R root:root {path}; else remove it and build templates anew.",
    )


def _move_store(data_dir: Path) -> None:
    """SQLite makes files beside its database, so that needs a directory of its own; the old name leads there."""
    old, store = data_dir / STORE_NAME, data_dir / STORE_DIRECTORY
    if old.is_symlink():
        return
    # The database last: until then this can be done again.
    for name in (f"{STORE_NAME}-wal", f"{STORE_NAME}-shm", STORE_NAME):
        source = data_dir / name
        with suppress(FileNotFoundError):
            if stat.S_ISREG(source.lstat().st_mode):
                source.rename(store / name)
    old.symlink_to(f"{STORE_DIRECTORY}/{STORE_NAME}")


def _give(top: Path, uid: int, gid: int) -> None:
    """The directory and what is in it, by descriptors: whatever somebody puts in the way, no link is followed. A file
    that has another name somewhere is left alone, as that may be root's."""
    descriptor = os.open(top, _DIRECTORY)
    try:
        os.fchmod(descriptor, 0o700)
        for number, (parent, name) in enumerate(_entries(descriptor, 0)):
            if number >= _MOST:
                raise error("INVALID_REQUEST", f"There are more than {_MOST} files in {top}.", remedy="Remove some.")
            _give_file(parent, name, uid, gid)
        os.fchown(descriptor, uid, gid)
    finally:
        os.close(descriptor)


def _entries(directory: int, depth: int) -> Iterator[tuple[int, str]]:
    """What is below an open directory, the innermost first; yields a parent's descriptor and a name."""
    for name in os.listdir(directory):
        try:
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
        except OSError:  # no directory
            yield directory, name
            continue
        try:
            if depth < _DEEPEST:
                yield from _entries(inner, depth + 1)
        finally:
            os.close(inner)
        yield directory, name


def _give_file(parent: int, name: str, uid: int, gid: int) -> None:
    with suppress(OSError):  # a link, or gone
        descriptor = os.open(name, _FILE, dir_fd=parent)
        try:
            status = os.fstat(descriptor)
            known = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
            if known and status.st_uid != uid:
                os.fchown(descriptor, uid, gid)
        finally:
            os.close(descriptor)
