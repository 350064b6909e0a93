"""Watching a directory tree, or one file, for changes."""

import asyncio
import os
import stat
from collections import deque
from contextlib import suppress
from itertools import islice

from cove.agent.files.watching_queue import Change, ChangeQueue
from cove.agent.files.watching_tree import MAX_DIRECTORIES, TooManyDirectories, WatchedTree
from cove.agent.files.writing import is_temporary
from cove.linux.inotify import (
    IN_ATTRIB,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    Event,
    Inotify,
)
from cove.models.errors import error

RENAME_SECONDS = 0.01
"""How long the second half of a rename is waited for; the kernel queues both at once."""
_ENTRIES_BETWEEN_TURNS = 200
_MAX_REMEMBERED = 16 * 1024
_ROOT_GONE = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED


class Watcher:
    """Fills a `ChangeQueue` while `run` runs. Close it.

    Links are not followed, and other file systems below the watched directory are not entered.
    """

    def __init__(self, path: str, *, recursive: bool) -> None:
        """Watches nothing yet.

        Raises:
            OSError: there is no such path, or too many watchers.
            CoveError: INVALID_PATH, it is a symbolic link.
        """
        root = os.fsencode(path).rstrip(b"/") or b"/"
        status = os.lstat(root)
        if stat.S_ISLNK(status.st_mode):
            raise error(
                "INVALID_PATH", f"Links are not followed, and this is one: {path}", remedy="Give its target.", path=path
            )
        self._root = root
        self._device = status.st_dev
        self._file = None if stat.S_ISDIR(status.st_mode) else os.path.basename(root)  # noqa: PTH119
        self._recursive = recursive and self._file is None
        self._inotify = Inotify()
        self._tree = WatchedTree(self._inotify)
        self._loop = asyncio.get_running_loop()
        self._readable = asyncio.Event()
        self._events: deque[Event] = deque()
        self._found: set[bytes] = set()
        self.queue = ChangeQueue(root)

    async def start(self) -> None:
        """Begin to watch; what happens from now on is noticed.

        Raises:
            OSError: it cannot be watched.
        """
        directory = self._root if self._file is None else os.path.dirname(self._root) or b"/"  # noqa: PTH120
        self._root_watch = self._tree.add(directory)
        if self._recursive:
            await self._scan(self._root, report=False)

    async def run(self) -> None:
        """Notice changes until the watched path is gone; then the queue is finished."""
        while not self.queue.finished:
            if not self._events and not await self._read(None):
                continue
            await self._handle(self._events.popleft())
            if not self._events:
                await asyncio.sleep(0)

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._inotify.fileno())
        self._inotify.close()

    async def _read(self, seconds: float | None) -> bool:
        """Take events from the kernel, waiting `seconds` for the first; whether there were any."""
        events = self._inotify.read()
        if not events:
            if not self._events:
                self._found.clear()
            self._readable.clear()
            self._loop.add_reader(self._inotify.fileno(), self._on_readable)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._readable.wait()
            self._loop.remove_reader(self._inotify.fileno())
            events = self._inotify.read()
        self._events.extend(events)
        return bool(events)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._inotify.fileno())
        self._readable.set()

    async def _handle(self, event: Event) -> None:
        if event.mask & IN_Q_OVERFLOW:
            self.queue.overflow()
            await self._scan_again()
            return
        if event.watch == self._root_watch and event.mask & _ROOT_GONE:
            self._end()
            return
        if event.mask & IN_IGNORED:
            self._tree.forget(event.watch)
            return
        directory = self._tree.path_of(event.watch)
        if directory is None or not event.name:
            return
        path = directory.rstrip(b"/") + b"/" + event.name
        if is_temporary(event.name):
            return
        if self._file is None:
            await self._changed(path, event)
        elif event.name == self._file:
            self._file_changed(event)

    async def _changed(self, path: bytes, event: Event) -> None:
        is_directory = bool(event.mask & IN_ISDIR)
        if event.mask & IN_MOVED_FROM:
            await self._moved(path, event)
        elif event.mask & (IN_CREATE | IN_MOVED_TO):
            if path in self._found:
                self._found.discard(path)
                return
            self.queue.put(Change(path, "created", is_directory))
            if is_directory and self._recursive:
                await self._scan(path, report=True)
        elif event.mask & IN_DELETE:
            # What was in a deleted directory was deleted before it, and the kernel has removed its watch.
            self._removed(path, is_directory=is_directory)
        elif event.mask & (IN_MODIFY | IN_ATTRIB):
            self.queue.put(Change(path, "modified", is_directory))

    async def _moved(self, old: bytes, event: Event) -> None:
        """The first half of a rename: one change when the second half is in the tree too."""
        is_directory = bool(event.mask & IN_ISDIR)
        second = self._second_half(event.cookie)
        if second is None and await self._read(RENAME_SECONDS):
            second = self._second_half(event.cookie)
        directory = None if second is None else self._tree.path_of(second.watch)
        if second is None or directory is None:
            if is_directory:
                self._tree.drop(old)
            self._removed(old, is_directory=is_directory)
            return
        self._events.remove(second)
        new = directory.rstrip(b"/") + b"/" + second.name
        if is_directory:
            self._tree.drop(new)
            self._tree.move(old, new)
        if new in self._found:
            self._found.discard(new)
            self.queue.put(Change(old, "deleted", is_directory))
        else:
            self.queue.put(Change(new, "renamed", is_directory, old))

    def _second_half(self, cookie: int) -> Event | None:
        return next((event for event in self._events if event.cookie == cookie and event.mask & IN_MOVED_TO), None)

    def _removed(self, path: bytes, *, is_directory: bool) -> None:
        self._found.discard(path)
        self.queue.put(Change(path, "deleted", is_directory))

    def _file_changed(self, event: Event) -> None:
        if event.mask & (IN_DELETE | IN_MOVED_FROM):
            self._end()
        else:
            # Something else was moved to its place: its content has changed.
            self.queue.put(Change(self._root, "modified"))

    def _end(self) -> None:
        self.queue.put(Change(self._root, "deleted", self._file is None))
        self.queue.finish()

    async def _scan_again(self) -> None:
        """Events were lost: directories that were made meanwhile are not watched yet."""
        if self._recursive:
            self._found.clear()
            await self._scan(self._root, report=False)

    async def _scan(self, top: bytes, *, report: bool) -> None:
        """Watch `top` and what is below it; with `report`, all that is found there counts as created.

        A directory is watched before it is read: what is made meanwhile is found, or comes as an event, or both.
        """
        waiting = [top]
        try:
            while waiting:
                waiting += await self._scan_one(waiting.pop(), report=report)
        except TooManyDirectories:
            self.queue.overflow()

    async def _scan_one(self, path: bytes, *, report: bool) -> list[bytes]:
        """The directories in `path` that are to be watched too; none when it has gone meanwhile."""
        below: list[bytes] = []
        if not self._tree.add_if_there(path):
            return below
        with suppress(OSError), os.scandir(path) as scan:
            while entries := list(islice(scan, _ENTRIES_BETWEEN_TURNS)):
                for entry in entries:
                    if report:
                        self._report(entry)
                    if len(below) <= MAX_DIRECTORIES and self._enters(entry):
                        below.append(entry.path)
                await asyncio.sleep(0)
        return below

    def _report(self, entry: os.DirEntry[bytes]) -> None:
        if is_temporary(entry.name):
            return
        if len(self._found) < _MAX_REMEMBERED:
            self._found.add(entry.path)
        self.queue.put(Change(entry.path, "created", entry.is_dir(follow_symlinks=False)))

    def _enters(self, entry: os.DirEntry[bytes]) -> bool:
        try:
            return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == self._device
        except OSError:
            return False
