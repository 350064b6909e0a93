"""Writing below one local directory and nowhere else, whatever names are given."""

import errno
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from cove.models.errors import error
from cove.sdk._archive_writing import stays_inside
from cove.sdk._transfers import Skipped

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What open(2) says of a link and of anything else that is no directory.
_NO_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)
_MAX_SKIPPED = 10_000
# Group and others may never write what a sandbox made; set-id bits mean nothing outside of it.
_KEPT_MODE = 0o755


class LocalTree:
    """A directory that is written to with names a sandbox chose.

    Args:
        root: an existing directory; links in its own path are followed, none below it.

    Attributes:
        skipped: what was left out, and why (the first 10,000).
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = Path(root)
        # The directory that was written to last: archives come directory by directory.
        self._last: tuple[str, int] | None = None
        self.skipped: list[Skipped] = []

    def close(self) -> None:
        """Give the descriptors back."""
        self._forget()
        os.close(self._root)

    def relative(self, name: str) -> str:
        """`name` without `.` and doubled slashes; empty for the directory itself.

        Raises:
            PlatformFailure: it leads outside.
        """
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise error(
                "INTERNAL_ERROR",
                f"The sandbox sent {name[:200]!r}, a name that leads outside of {self._path}.",
                remedy="Nothing was written there. Do not trust what this sandbox sends.",
            )
        return "/".join(parts)

    def skip(self, name: str, reason: str) -> None:
        """Leave `name` out."""
        if len(self.skipped) < _MAX_SKIPPED:
            self.skipped.append(Skipped(path=name, reason=reason))

    def begin_file(self, name: str, mode: int) -> "Writing | None":
        """A file that takes the place of `name` once it is complete; None when a directory is there."""
        with self._parent(name) as (parent, leaf):
            if _is_directory(parent, leaf):
                self.skip(name, "a directory of this name exists")
                return None
            return Writing(parent, leaf, 0o600 | mode & _KEPT_MODE)

    def make_directory(self, name: str, mode: int) -> bool:
        """Make it, or set the mode of one that is there; false when something else is."""
        self._forget()
        with self._parent(name) as (parent, leaf):
            with suppress(FileExistsError):
                os.mkdir(leaf, 0o700, dir_fd=parent)
            try:
                descriptor = os.open(leaf, _DIRECTORY, dir_fd=parent)
            except OSError as problem:
                if problem.errno not in _NO_DIRECTORY:
                    raise
                self.skip(name, "something else of this name exists")
                return False
        try:
            os.fchmod(descriptor, 0o700 | mode & _KEPT_MODE)
        finally:
            os.close(descriptor)
        return True

    def make_link(self, name: str, link: str) -> bool:
        """Make or replace a symbolic link; false for one that leads outside, or that a directory is in the way of."""
        if not stays_inside(name, link) or "\0" in link:
            self.skip(name, "a link that leads outside of the directory")
            return False
        with self._parent(name) as (parent, leaf):
            if _is_directory(parent, leaf):
                self.skip(name, "a directory of this name exists")
                return False
            temporary = _temporary(leaf)
            os.symlink(link, temporary, dir_fd=parent)
            os.replace(temporary, leaf, src_dir_fd=parent, dst_dir_fd=parent)
        return True

    @contextmanager
    def _parent(self, name: str) -> Generator[tuple[int, str]]:
        """The directory that `name` is in, made if need be, and the last part of the name."""
        folder, _, leaf = name.rpartition("/")
        if not folder:
            yield self._root, leaf
            return
        if self._last is None or self._last[0] != folder:
            self._forget()
            self._last = folder, self._descend(folder)
        yield self._last[1], leaf

    def _descend(self, folder: str) -> int:
        here = os.dup(self._root)
        try:
            for part in folder.split("/"):
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
                below = os.open(part, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
        except BaseException as problem:
            os.close(here)
            if isinstance(problem, OSError) and problem.errno in _NO_DIRECTORY:
                raise error(
                    "CONFLICT",
                    f"{self._path / folder} is not a directory, or a link to one; links are not followed here.",
                    remedy="Choose another local directory.",
                ) from None
            raise
        return here

    def _forget(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
            self._last = None


class Writing:
    """A file in the making, under another name beside its place."""

    def __init__(self, parent: int, leaf: str, mode: int) -> None:
        self._parent = os.dup(parent)
        self._leaf = leaf
        self._temporary = _temporary(leaf)
        try:
            self._file = os.fdopen(os.open(self._temporary, _NEW_FILE, 0o600, dir_fd=self._parent), "wb")
        except BaseException:
            os.close(self._parent)
            raise
        os.fchmod(self._file.fileno(), mode)

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self._file.write(data)

    def complete(self) -> None:
        """Put it in its place."""
        try:
            self._file.close()
            os.replace(self._temporary, self._leaf, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        except BaseException:
            self._remove()
            raise
        finally:
            os.close(self._parent)

    def abandon(self) -> None:
        """Leave nothing of it."""
        with suppress(OSError):
            self._file.close()
        self._remove()
        os.close(self._parent)

    def _remove(self) -> None:
        with suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._parent)


def _temporary(leaf: str) -> str:
    return f".{leaf.encode('utf-8', 'surrogateescape')[:100].decode('utf-8', 'ignore')}.{secrets.token_hex(6)}"


def _is_directory(parent: int, leaf: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(leaf, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
