"""A local directory as one tar stream (GNU format, tar(5)), made while it is sent."""

import os
import stat
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cove.models.errors import error
from cove.sdk._local_files import PIECE_BYTES, open_regular
from cove.sdk._transfers import Skipped

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_LEADS_OUTSIDE = "a link that leads outside of the directory"


@dataclass
class Packing:
    """How far the making of an archive has come.

    Attributes:
        entries: files, directories and links that are in it.
        size: bytes of the files' contents.
        skipped: what is left out, and why.
    """

    entries: int = 0
    size: int = 0
    skipped: tuple[Skipped, ...] = ()

    def skip(self, name: str, reason: str) -> None:
        """Leave `name` out."""
        self.skipped += (Skipped(path=name, reason=reason),)


def packed(root: str | os.PathLike[str], state: Packing) -> Iterator[bytes]:
    """Everything below `root`, in order, in pieces of about 256 KiB; `state` says what was packed.

    Modes (the executable bits with them), empty directories and symbolic links are kept. FIFOs, sockets, devices and
    links that lead outside are left out.

    Raises:
        OSError: something cannot be read.
        InvalidRequest: a file was cut while it was being read.
    """
    # A body is made anew when its first request was refused.
    state.entries, state.size, state.skipped = 0, 0, ()
    held = bytearray()
    for part in _parts(Path(root), state):
        held += part
        if len(held) >= PIECE_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held) + _END


def packed_files(files: Iterable[tuple[str, bytes]], *, mode: int) -> Iterator[bytes]:
    """The same for contents in memory, by their names."""
    for name, content in files:
        header = tarfile.TarInfo(name)
        header.mode, header.mtime, header.size = mode, int(time.time()), len(content)
        yield _encoded(header) + content + bytes(-len(content) % _BLOCK)
    yield _END


def next_piece(pieces: Iterator[bytes]) -> bytes | None:
    """The next one; None at the end."""
    return next(pieces, None)


def stays_inside(name: str, link: str) -> bool:
    """Whether the link `name` -> `link` cannot lead outside of the tree that both are in.

    Going up is fine at the beginning only, and no further than `name` is deep: after a part that may itself be a link,
    nobody can tell from the names where `..` leads.
    """
    parts = [part for part in link.split("/") if part not in ("", ".")]
    ups = next((position for position, part in enumerate(parts) if part != ".."), len(parts))
    return bool(link) and not link.startswith("/") and ".." not in parts[ups:] and ups <= name.count("/")


def _parts(root: Path, state: Packing) -> Iterator[bytes]:
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(root / folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            yield from _entry(entry, name, state)


def _entry(entry: os.DirEntry[str], name: str, state: Packing) -> Iterator[bytes]:
    status = entry.stat(follow_symlinks=False)
    header = tarfile.TarInfo(name)
    header.mode, header.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    if stat.S_ISREG(status.st_mode):
        yield from _file(entry.path, header, state)
        return
    if stat.S_ISDIR(status.st_mode):
        header.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        header.type, header.linkname = tarfile.SYMTYPE, str(Path(entry.path).readlink())
        if not stays_inside(name, header.linkname):
            state.skip(name, _LEADS_OUTSIDE)
            return
    else:
        state.skip(name, "a FIFO, socket or device")
        return
    state.entries += 1
    yield _encoded(header)


def _file(path: str, header: tarfile.TarInfo, state: Packing) -> Iterator[bytes]:
    """Exactly as many bytes as the header announces, though the file may grow meanwhile."""
    file, size = open_regular(path)
    with file:
        header.size = left = size
        state.entries += 1
        yield _encoded(header)
        while left:
            piece = file.read(min(left, PIECE_BYTES))
            if not piece:
                raise error("INVALID_REQUEST", f"{path} was cut while it was being uploaded.")
            left -= len(piece)
            state.size += len(piece)
            yield piece
    yield bytes(-size % _BLOCK)


def _encoded(header: tarfile.TarInfo) -> bytes:
    return header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
