"""Extracting an archive below a directory, as it comes. Nothing is ever written outside of that directory."""

# A path is text here: pathlib would rewrite what the client sent.
# ruff: noqa: PTH103

import os
import stat
import tarfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from cove.agent.files.paths import shown
from cove.agent.files.tar_stream import BrokenArchive, Member, TarStream
from cove.agent.files.writing import Replacement
from cove.linux.beneath import Beneath, EscapingName, check_link, parts_of

MAX_ENTRIES = 1_000_000

_PERMISSIONS = 0o777
_MAX_SECONDS = 2**34 - 1


class Extraction:
    """One archive on its way to disk. Feed it with `write`, then `finish`; files appear whole or not at all.

    Attributes:
        entries: members that are in place.
        bytes: of the files among them.
        path: the member that is being written, as a path; for messages.
    """

    def __init__(self, target: str) -> None:
        """Extract below the directory `target`, which is made when it does not exist.

        Raises:
            OSError: it cannot be made, or is something else.
        """
        os.makedirs(target, mode=0o755, exist_ok=True)
        self.entries = 0
        self.bytes = 0
        self.path = target
        self._target = target
        self._resources = ExitStack()
        self._tree = self._resources.enter_context(Beneath(target))
        self._stream = TarStream(self)
        self._file: Replacement | None = None
        self._member: Member | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()
        self._resources.close()

    def write(self, data: bytes) -> None:
        """Take the next bytes of the archive.

        Raises:
            BrokenArchive: it is not well formed, or holds what is not accepted.
            OSError: a member cannot be written.
        """
        self._stream.feed(data)

    def finish(self) -> None:
        """The archive has ended.

        Raises:
            BrokenArchive: too soon.
        """
        if not self._stream.finished:
            raise BrokenArchive("it ends before its end mark")

    def begin(self, member: Member) -> None:
        """Write a directory or a link, or open a file."""
        self.path = f"{self._target}/{shown(member.name)}"
        if self.entries >= MAX_ENTRIES:
            raise BrokenArchive(f"it has more than {MAX_ENTRIES} members")
        parts = _checked_parts(member)
        if member.type == tarfile.DIRTYPE:
            self._directory(parts, member.mode)
        elif not parts:
            raise BrokenArchive(f"{shown(member.name)!r} names no file")
        elif member.type == tarfile.SYMTYPE:
            self._symbolic_link(parts, member)
        elif member.type == tarfile.LNKTYPE:
            self._hard_link(parts, member)
        else:
            self._file = Replacement(self._tree.directory(parts[:-1], create=True))
            self._member = member
            return
        self.entries += 1

    def content(self, data: memoryview) -> None:
        """Write bytes of the file."""
        if self._file is not None:
            self._file.write(data)

    def end(self) -> None:
        """Put the file into its place."""
        file, member = self._file, self._member
        if file is None or member is None:
            return
        file.commit(parts_of(member.name)[-1], mode=member.mode & _PERMISSIONS, modified=_moment(member.modified))
        self.entries += 1
        self.bytes += file.size
        self._drop()

    def _drop(self) -> None:
        file, self._file, self._member = self._file, None, None
        if file is not None:
            file.close()

    def _directory(self, parts: tuple[str, ...], mode: int) -> None:
        directory = self._tree.directory(parts, create=True)
        if parts:
            with suppress(PermissionError):  # one that was there already and is not the sandbox's user's own
                # Its owner can always use it: members that belong into it are still to come.
                os.fchmod(directory, mode & _PERMISSIONS | stat.S_IRWXU)

    def _symbolic_link(self, parts: tuple[str, ...], member: Member) -> None:
        try:
            check_link(parts, member.link)
        except EscapingName:
            raise BrokenArchive(
                f"the link {shown(member.name)!r} to {shown(member.link)!r} might lead out of the directory"
            ) from None
        directory = self._tree.directory(parts[:-1], create=True)
        _in_place_of(parts[-1], directory, lambda: os.symlink(member.link, parts[-1], dir_fd=directory))

    def _hard_link(self, parts: tuple[str, ...], member: Member) -> None:
        try:
            source = parts_of(member.link)
        except EscapingName:
            source = ()
        if not source:
            raise BrokenArchive(f"the hard link {shown(member.name)!r} leads out of the directory")
        # `directory` keeps one descriptor only.
        origin = os.dup(self._tree.directory(source[:-1]))
        try:
            if not stat.S_ISREG(os.stat(source[-1], dir_fd=origin, follow_symlinks=False).st_mode):
                raise BrokenArchive(f"the hard link {shown(member.name)!r} does not repeat a file")
            directory = self._tree.directory(parts[:-1], create=True)
            if source == parts:
                return
            _in_place_of(
                parts[-1],
                directory,
                lambda: os.link(source[-1], parts[-1], src_dir_fd=origin, dst_dir_fd=directory, follow_symlinks=False),
            )
        finally:
            os.close(origin)


def _checked_parts(member: Member) -> tuple[str, ...]:
    try:
        return parts_of(member.name)
    except EscapingName:
        raise BrokenArchive(f"the name {shown(member.name)[:200]!r} leads out of the directory") from None


def _in_place_of(name: str, directory: int, make: Callable[[], None]) -> None:
    """Make something at `name`, and remove what is there now unless that is a directory."""
    try:
        make()
    except FileExistsError:
        os.unlink(name, dir_fd=directory)
        make()


def _moment(seconds: float) -> float:
    """A time that every file system takes."""
    return min(max(seconds, 0.0), _MAX_SECONDS)
