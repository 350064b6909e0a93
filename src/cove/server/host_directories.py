"""Directories of this machine that the operator lets be copied into sandboxes, read without following any link."""

import os
import stat
import tarfile
from collections.abc import Generator, Sequence
from pathlib import Path

from cove.linux.beneath import Beneath, EscapingName, check_link, parts_of
from cove.models.errors import CoveError, error
from cove.models.volumes import MAX_VOLUME_BYTES, MAX_VOLUME_ENTRIES

_PIECE_BYTES = 256 * 1024
_BLOCK = 512
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class HostDirectories:
    """Who names a path here may be anybody with a key: only the operator's list says what is read.

    Args:
        allowed: absolute paths. Links in these are followed; below them, none is.
    """

    def __init__(self, allowed: Sequence[Path]) -> None:
        self._allowed = allowed

    def archive(self, path: str) -> Generator[bytes]:
        """A tar archive (GNU format) of the directory `path`, in pieces. Files, directories and links that stay inside
        are in it, and nothing of other file systems that are mounted below. Blocking: read it in a thread.

        Raises:
            CoveError: PATH_NOT_ALLOWED; REQUEST_TOO_LARGE; DIRECTORY_NOT_FOUND.
        """
        for top in self._allowed:
            try:
                parts = parts_of(os.path.relpath(path, top)) if _is_below(path, top) else None
            except EscapingName:
                continue
            if parts is not None:
                return _archive(str(top), parts, path)
        raise self._refused(path)

    def _refused(self, path: str) -> CoveError:
        there = f" Allowed here: {', '.join(map(str, self._allowed))}." if self._allowed else ""
        return error(
            "PATH_NOT_ALLOWED",
            f"volumes: the operator of this server has not allowed {path[:200]!r}.{there}",
            remedy="Leave volumes out and copy files in (file_write, the SDK's files.upload_dir), or have the operator"
            " allow the directory: COVE_ALLOWED_VOLUMES, `cove serve --allow-volume`.",
            field="volumes",
        )


def _is_below(path: str, top: Path) -> bool:
    """By the names as they are written: `..` is never taken, and links are not followed later."""
    plain = path.startswith("/") and "\0" not in path and ".." not in path.split("/")
    return plain and Path(path).is_relative_to(top)


def _archive(top: str, below: tuple[str, ...], shown: str) -> Generator[bytes]:
    entries = size = 0
    held = bytearray()
    try:
        with Beneath(top) as beneath:
            device = os.fstat(beneath.directory(below)).st_dev
            for found in _walk(beneath, below, (), device):
                entries += 1
                size += found.size
                if entries > MAX_VOLUME_ENTRIES or size > MAX_VOLUME_BYTES:
                    found.close()
                    raise _too_large(shown)
                held += found.header
                for piece in found.content():
                    held += piece
                    if len(held) >= _PIECE_BYTES:
                        yield bytes(held)
                        held.clear()
    except OSError as problem:
        raise error(
            "DIRECTORY_NOT_FOUND",
            f"volumes: {shown[:200]!r} cannot be read: {problem.strerror}. Links are not followed.",
            remedy="Name a directory by its own path.",
        ) from problem
    yield bytes(held) + bytes(2 * _BLOCK)


class _Found:
    """One entry: its header, and for a file a descriptor, which `content` closes at its end."""

    def __init__(self, header: bytes, size: int = 0, descriptor: int | None = None) -> None:
        self.header = header
        self.size = size
        self._descriptor = descriptor

    def close(self) -> None:
        """For one whose content is not wanted."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def content(self) -> Generator[bytes]:
        """As many bytes as the header announces, whatever becomes of the file meanwhile."""
        if self._descriptor is None:
            return
        left = self.size
        with os.fdopen(self._descriptor, "rb", buffering=0) as file:
            while left:
                piece = file.read(min(left, _PIECE_BYTES)) or bytes(min(left, _PIECE_BYTES))
                left -= len(piece)
                yield piece
        yield bytes(-self.size % _BLOCK)


def _walk(beneath: Beneath, below: tuple[str, ...], inside: tuple[str, ...], device: int) -> Generator[_Found]:
    pending = [inside]
    while pending:
        parts = pending.pop()
        with os.scandir(beneath.directory((*below, *parts))) as scan:
            names = sorted(entry.name for entry in scan)
        for name in names:
            # Asked for again: whoever read what was found last may have used another directory since.
            directory = beneath.directory((*below, *parts))
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                found = _entry((*parts, name), status, directory)
            except FileNotFoundError:
                continue
            if found is not None:
                yield found
            if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                pending.append((*parts, name))


def _entry(parts: tuple[str, ...], status: os.stat_result, directory: int) -> _Found | None:
    """None for what is not copied: FIFOs, sockets, devices, links that lead outside."""
    name = parts[-1]
    if stat.S_ISDIR(status.st_mode):
        return _Found(_header(parts, status, tarfile.DIRTYPE))
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=directory)
        try:
            check_link(parts, target)
        except EscapingName:
            return None
        return _Found(_header(parts, status, tarfile.SYMTYPE, link=target))
    if not stat.S_ISREG(status.st_mode):
        return None
    descriptor = os.open(name, _FILE, dir_fd=directory)
    now = os.fstat(descriptor)
    if not stat.S_ISREG(now.st_mode):
        os.close(descriptor)
        return None
    return _Found(_header(parts, now, tarfile.REGTYPE, size=now.st_size), now.st_size, descriptor)


def _header(parts: tuple[str, ...], status: os.stat_result, kind: bytes, *, size: int = 0, link: str = "") -> bytes:
    info = tarfile.TarInfo("/".join(parts))
    info.type, info.size, info.linkname = kind, size, link
    info.mode, info.mtime = stat.S_IMODE(status.st_mode) & 0o777, int(status.st_mtime)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _too_large(shown: str) -> CoveError:
    return error(
        "REQUEST_TOO_LARGE",
        f"volumes: there is more below {shown[:200]!r} than {MAX_VOLUME_ENTRIES} entries or"
        f" {MAX_VOLUME_BYTES // 1024**2} MiB.",
        remedy="Name a smaller directory.",
    )
