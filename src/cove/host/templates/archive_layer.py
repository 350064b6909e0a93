"""A layer of directories that a build left in its sandbox, out of tar files whose content is not trusted."""

import errno
import hashlib
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cove.host.templates.layers import Workspace
from cove.linux.beneath import Beneath, EscapingName, parts_of
from cove.models.errors import CoveError, error

MAX_ENTRIES = 1_000_000
_MAX_DEPTH = 256
_COPY_BYTES = 1024 * 1024
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class ArchiveLayer:
    """Directories and the tar files that hold their content.

    In a layer all files belong to the template's owner, who is root inside. So that the sandbox's user can go on with
    what was its own, everybody may do what the owner might: in a sandbox there is nobody else.
    """

    kind = "build"
    seconds = 2.0

    def __init__(self, directories: Sequence[tuple[PurePosixPath, Path]], *, max_bytes: int) -> None:
        """
        Args:
            directories: absolute paths inside, and tar files with names relative to them.
            max_bytes: of all files together.
        """
        self._directories = tuple(directories)
        self._max_bytes = max_bytes

    def inputs(self) -> Mapping[str, Any]:
        """The content itself decides."""
        return {str(inside): _digest(archive) for inside, archive in self._directories}

    def build(self, work: Workspace) -> None:
        """Extract everything.

        Raises:
            CoveError: TEMPLATE_BUILD_FAILED for an archive that would write elsewhere, is broken or too large.
        """
        extraction = _Extraction(self._max_bytes)
        with Beneath(str(work.rootfs.root)) as tree:
            for inside, archive in self._directories:
                work.rootfs.directory(inside)
                try:
                    extraction.extract(archive, tree, parts_of(str(inside).lstrip("/")))
                except (tarfile.TarError, UnicodeError, ValueError) as problem:
                    raise _refused(f"the archive of {inside} is broken: {problem}") from problem


class _Extraction:
    """Writes below an open directory, one path component at a time, and follows no link."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._entries = 0

    def extract(self, archive: Path, tree: Beneath, top: tuple[str, ...]) -> None:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                self._entries += 1
                if self._entries > MAX_ENTRIES:
                    raise _refused(f"more than {MAX_ENTRIES} files")
                parts = _parts(member.name)
                if parts:
                    self._write(tar, member, tree, top + parts)

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, tree: Beneath, parts: tuple[str, ...]) -> None:
        if member.isdir():
            os.fchmod(_directory(tree, parts), _open_to_all(member.mode | 0o700))
            return
        parent, name = _directory(tree, parts[:-1]), parts[-1]
        if member.issym():
            _remove(parent, name)
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.isreg():
            source = tar.extractfile(member)
            if source is not None:
                self._write_file(source, parent, name, member)

    def _write_file(self, source: IO[bytes], parent: int, name: str, member: tarfile.TarInfo) -> None:
        _remove(parent, name)
        handle = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        with os.fdopen(handle, "wb", buffering=0) as target:
            while chunk := source.read(_COPY_BYTES):
                self._left -= len(chunk)
                if self._left < 0:
                    raise _refused("its files are larger than the disk that was asked for")
                target.write(chunk)
            os.fchmod(handle, _open_to_all(member.mode))
            when = max(0, int(member.mtime))
            os.utime(handle, (when, when))


def _parts(name: str) -> tuple[str, ...]:
    """The components of a relative path; refuses what leads out."""
    try:
        parts = parts_of(name)
    except EscapingName:
        parts = None
    if parts is None or "\0" in name or len(parts) > _MAX_DEPTH:
        raise _refused(f"the name {name[:100]!r} leads out of its directory")
    return parts


def _directory(tree: Beneath, parts: tuple[str, ...]) -> int:
    try:
        return tree.directory(parts, create=True)
    except OSError as problem:
        if problem.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        # A file or a link is in the way.
        raise _refused(f"{'/'.join(parts)[:100]!r} is no directory") from problem


def _remove(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as problem:
        raise _refused(f"{name[:100]!r} is there twice, once as a directory") from problem


def _open_to_all(mode: int) -> int:
    owner = (mode >> 6) & 0o7
    return owner << 6 | owner << 3 | owner


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refused(why: str) -> CoveError:
    return error("TEMPLATE_BUILD_FAILED", f"What the build left cannot become a template: {why}.")
