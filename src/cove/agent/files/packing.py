"""A directory as a tar archive (GNU format: names are bytes, and of any length), written as it is read."""

import asyncio
import errno
import os
import stat
import tarfile
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import NamedTuple

from cove.agent.files.paths import shown
from cove.agent.files.tar_stream import BLOCK
from cove.models.errors import CoveError, error

MAX_ENTRIES = 1_000_000
MAX_BYTES = 64 * 1024**3
"""Of all files together. A sparse file can seem larger than any disk."""

_PIECE_BYTES = 256 * 1024
_ENTRIES_BETWEEN_TURNS = 200
_END = bytes(2 * BLOCK)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Survey(NamedTuple):
    """What an archive would hold.

    Attributes:
        size: bytes of the files' contents.
    """

    entries: int
    size: int


class _Found(NamedTuple):
    # `directory` is a descriptor that is open until the next one is asked for.
    path: str
    name: str
    directory: int
    status: os.stat_result


async def survey(top: str, *, skip_unreadable: bool = False) -> Survey:
    """Look at everything that `pack` would read, so that what is wrong can still be answered.

    Raises:
        CoveError: REQUEST_TOO_LARGE.
        OSError: `top` is no directory, or something below it cannot be read: `filename` says what.
    """
    entries = size = 0
    for turn, found in enumerate(_walk(top, skip_unreadable=skip_unreadable), 1):
        mode = found.status.st_mode
        entries += stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
        if stat.S_ISREG(mode):
            size += found.status.st_size
            if not skip_unreadable and not os.access(found.name, os.R_OK, dir_fd=found.directory):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), found.path)
        if entries > MAX_ENTRIES or size > MAX_BYTES:
            raise _too_large(top)
        if turn % _ENTRIES_BETWEEN_TURNS == 0:
            await asyncio.sleep(0)
    return Survey(entries, size)


async def pack(top: str, *, skip_unreadable: bool = False) -> AsyncGenerator[bytes, None]:
    """The archive of the directory `top`, in pieces; names are relative to it.

    Directories, files and symbolic links are in it, with permissions and times of modification; FIFOs, sockets and
    devices are not, nor what other file systems hold that are mounted below. Each hard link is a file of its own. A
    file that grows meanwhile is cut, and one that shrinks is filled with zeros, to the size that it had; what vanishes
    is left out.

    Raises:
        OSError: something cannot be read; the archive is not whole then.
    """
    held = bytearray()
    for turn, found in enumerate(_walk(top, skip_unreadable=skip_unreadable), 1):
        mode = found.status.st_mode
        if stat.S_ISREG(mode):
            with _readable(found, skip_unreadable=skip_unreadable) as file:
                if file is None:
                    continue
                descriptor, status = file
                held += _header(found.path, status)
                for piece in _content(descriptor, status.st_size):
                    held += piece
                    if len(held) >= _PIECE_BYTES:
                        yield bytes(held)
                        held.clear()
        elif stat.S_ISDIR(mode):
            held += _header(found.path, found.status)
        elif stat.S_ISLNK(mode):
            held += _link_header(found)
        if len(held) >= _PIECE_BYTES:
            yield bytes(held)
            held.clear()
        elif turn % _ENTRIES_BETWEEN_TURNS == 0:
            await asyncio.sleep(0)
    yield bytes(held + _END)


def _walk(top: str, *, skip_unreadable: bool) -> Generator[_Found]:
    """Everything below `top`, a directory before what is in it. One directory is open at a time, however deep it is."""
    root = os.open(top, _DIRECTORY)
    try:
        device = os.fstat(root).st_dev
        pending = [""]
        while pending:
            path = pending.pop()
            descriptor = _directory(path, root, skip_unreadable=skip_unreadable)
            if descriptor is None:
                continue
            try:
                for found in _entries(path, descriptor):
                    yield found
                    if stat.S_ISDIR(found.status.st_mode) and found.status.st_dev == device:
                        pending.append(found.path)
            finally:
                os.close(descriptor)
    finally:
        os.close(root)


def _directory(path: str, root: int, *, skip_unreadable: bool) -> int | None:
    try:
        return os.open(path or ".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        # Removed or exchanged since it was listed.
        return None
    except PermissionError:
        if skip_unreadable:
            return None
        raise


def _entries(path: str, descriptor: int) -> Generator[_Found]:
    with os.scandir(descriptor) as scan:
        for entry in scan:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield _Found(f"{path}/{entry.name}" if path else entry.name, entry.name, descriptor, status)


@contextmanager
def _readable(found: _Found, *, skip_unreadable: bool) -> Generator[tuple[int, os.stat_result] | None]:
    """A descriptor of a regular file and its status; None when it vanished, was exchanged, or may be left out."""
    try:
        descriptor = os.open(found.name, _FILE, dir_fd=found.directory)
    except PermissionError:
        if not skip_unreadable:
            raise
        yield None
        return
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise
        yield None
        return
    try:
        status = os.fstat(descriptor)
        yield (descriptor, status) if stat.S_ISREG(status.st_mode) else None
    finally:
        os.close(descriptor)


def _content(descriptor: int, size: int) -> Generator[bytes]:
    left = size
    while left:
        piece = os.read(descriptor, min(left, _PIECE_BYTES)) or bytes(min(left, _PIECE_BYTES))
        left -= len(piece)
        yield piece
    yield bytes(-size % BLOCK)


def _header(path: str, status: os.stat_result, *, link: str | None = None) -> bytes:
    info = tarfile.TarInfo(path)
    info.mode = stat.S_IMODE(status.st_mode) & 0o777
    info.mtime = int(status.st_mtime)
    if link is not None:
        info.type, info.linkname = tarfile.SYMTYPE, link
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    else:
        info.size = status.st_size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _link_header(found: _Found) -> bytes:
    try:
        target = os.readlink(found.name, dir_fd=found.directory)
    except OSError:
        # Removed, or exchanged for something else.
        return b""
    return _header(found.path, found.status, link=target)


def _too_large(top: str) -> CoveError:
    return error(
        "REQUEST_TOO_LARGE",
        f"There is more below {shown(top)} than {MAX_ENTRIES} entries or {MAX_BYTES // 1024**3} GiB.",
        remedy="Fetch its directories one by one, or make an archive in the sandbox and download that.",
        path=shown(top),
    )
