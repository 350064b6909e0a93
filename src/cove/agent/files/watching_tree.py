"""Which directories are watched, and under which paths they are known."""

import errno

from cove.linux.inotify import (
    IN_ATTRIB,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_DONT_FOLLOW,
    IN_EXCL_UNLINK,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    Inotify,
)

MAX_DIRECTORIES = 8192
_MASK = (
    (IN_CREATE | IN_DELETE | IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF)
    | (IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK)
)  # fmt: skip
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP)


class TooManyDirectories(Exception):
    """The limit of this class or of the kernel is reached."""


class WatchedTree:
    """Watches of directories. The kernel names a directory by a number; renames do not change it."""

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        self._paths: dict[int, bytes] = {}
        self._watches: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, path: bytes) -> int:
        """Watch the directory itself, and return its number. Links are not followed.

        Raises:
            TooManyDirectories: it is not watched.
            OSError: it cannot be.
        """
        if len(self._paths) >= MAX_DIRECTORIES and path not in self._watches:
            raise TooManyDirectories
        try:
            watch = self._inotify.add(path, _MASK)
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.ENOMEM):
                raise TooManyDirectories from None
            raise
        earlier = self._paths.get(watch)
        if earlier is not None and earlier != path:
            self._watches.pop(earlier, None)
        self._paths[watch] = path
        self._watches[path] = watch
        return watch

    def add_if_there(self, path: bytes) -> bool:
        """Like `add`; whether it still is a directory that may be read."""
        try:
            self.add(path)
        except OSError as problem:
            if problem.errno in _VANISHED:
                return False
            raise
        return True

    def path_of(self, watch: int) -> bytes | None:
        """Where the directory with this number is; None when it is not watched any more."""
        return self._paths.get(watch)

    def forget(self, watch: int) -> None:
        """The kernel has removed this watch."""
        path = self._paths.pop(watch, None)
        if path is not None and self._watches.get(path) == watch:
            del self._watches[path]

    def move(self, old: bytes, new: bytes) -> None:
        """The directory `old` and all below it are at `new` now."""
        for path, watch in self._below(old):
            del self._watches[path]
            moved = new + path[len(old) :]
            self._paths[watch] = moved
            self._watches[moved] = watch

    def drop(self, path: bytes) -> None:
        """Watch `path` and all below it no longer."""
        for name, watch in self._below(path):
            del self._watches[name]
            self._paths.pop(watch, None)
            self._inotify.remove(watch)

    def _below(self, path: bytes) -> list[tuple[bytes, int]]:
        prefix = path.rstrip(b"/") + b"/"
        return [(name, watch) for name, watch in self._watches.items() if name == path or name.startswith(prefix)]
