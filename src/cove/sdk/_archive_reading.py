"""A tar stream (ustar, GNU or pax; tar(5)) into a local directory. A sandbox made the stream: nothing of it is trusted.

What is written goes below the target, component by component with `O_NOFOLLOW`, so that no link, neither of the archive
nor one that was there before, leads a file elsewhere.
"""

import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from cove.models.errors import CoveError, error
from cove.sdk._local_tree import LocalTree, Writing

MAX_ENTRIES = 1_000_000
_BLOCK = 512
_MAX_META_BYTES = 64 * 1024
_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_META_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)


@dataclass(frozen=True)
class _Member:
    """One entry as its headers describe it."""

    name: str
    kind: bytes
    size: int
    mode: int
    link: str


class Unpacker:
    """Takes an archive in pieces and writes what is in it.

    Args:
        target: an existing directory.

    Attributes:
        entries: files, directories and links that were written.
        size: bytes of the files' contents.
        tree: what it writes to; knows what was skipped.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        self.entries = 0
        self.size = 0
        self.tree = LocalTree(target)
        self._held = bytearray()
        self._seen = 0
        self._ended = False
        self._overrides: dict[str, str] = {}
        self._body: _Body | None = None
        self._turn = Lock()

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            PlatformFailure: this is no archive, or one that leads outside of the target.
            OSError: something cannot be written.
        """
        with self._turn:
            self._held += piece
            while not self._ended and self._step():
                pass
            if self._ended:
                self._held.clear()

    def finish(self) -> None:
        """The stream has ended.

        Raises:
            PlatformFailure: the archive is not complete.
        """
        if not self._ended:
            raise _broken("it ends too early")

    def close(self) -> None:
        """Remove what was not completed; to be called however the reading ended."""
        # A cancelled task comes here while a thread may still be feeding.
        with self._turn:
            self._ended = True
            if self._body is not None:
                self._body.abandon()
                self._body = None
            self.tree.close()

    def _step(self) -> bool:
        """Use some of what is held; false when that needs more."""
        if self._body is not None:
            return self._take(self._body)
        if len(self._held) < _BLOCK:
            return False
        block = bytes(self._held[:_BLOCK])
        del self._held[:_BLOCK]
        self._begin(block)
        return True

    def _take(self, body: "_Body") -> bool:
        if not self._held and body.left:
            return False
        taken = bytes(self._held[: body.left])
        del self._held[: len(taken)]
        if body.take(taken):
            self._body = None
            body.done()
        return True

    def _begin(self, block: bytes) -> None:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as problem:
            if block.count(0) < _BLOCK:
                raise _broken(str(problem)) from None
            self._ended = True
            return
        if header.type in _META_TYPES:
            self._begin_meta(header)
            return
        member = self._member(header)
        self._seen += 1
        if self._seen > MAX_ENTRIES:
            raise error("REQUEST_TOO_LARGE", f"The archive has more than {MAX_ENTRIES} entries.")
        self._body = self._content(member)

    def _begin_meta(self, header: tarfile.TarInfo) -> None:
        if not 0 <= header.size <= _MAX_META_BYTES:
            raise _broken("a name is too long")
        collected = bytearray()

        def done() -> None:
            self._overrides |= _overrides(header.type, bytes(collected))

        self._body = _Body(header.size, write=collected.extend, done=done)

    def _member(self, header: tarfile.TarInfo) -> _Member:
        given, self._overrides = self._overrides, {}
        try:
            size = int(given.get("size", header.size))
        except ValueError:
            size = -1
        if size < 0:
            raise _broken("a size is negative")
        name, link = given.get("path", header.name), given.get("linkpath", header.linkname)
        return _Member(name, header.type, size, header.mode, link)

    def _content(self, member: _Member) -> "_Body":
        """Where the bytes after the header of `member` go."""
        name = self.tree.relative(member.name)
        if not name:
            return _Body(member.size)  # the directory itself
        writing = None
        if member.kind in _FILE_TYPES:
            writing = self.tree.begin_file(name, member.mode)
        elif member.kind == tarfile.DIRTYPE:
            self.entries += self.tree.make_directory(name, member.mode)
        elif member.kind == tarfile.SYMTYPE:
            self.entries += self.tree.make_link(name, member.link)
        else:
            self.tree.skip(name, "neither a file, nor a directory, nor a symbolic link")
        return _Body(member.size) if writing is None else self._file_body(writing, member.size)

    def _file_body(self, writing: Writing, size: int) -> "_Body":
        def done() -> None:
            writing.complete()
            self.entries += 1
            self.size += size

        return _Body(size, write=writing.write, done=done, abandon=writing.abandon)


class _Body:
    """The bytes of one entry, with the padding behind them."""

    def __init__(
        self,
        size: int,
        *,
        write: Callable[[bytes], object] = lambda _: None,
        done: Callable[[], None] = lambda: None,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self.left = size + -size % _BLOCK
        self._content = size
        self._write = write
        self.done = done
        self.abandon = abandon

    def take(self, data: bytes) -> bool:
        """Use `data`, no more than `left`; true when that was all."""
        content = data[: self._content]
        self._content -= len(content)
        self.left -= len(data)
        if content:
            self._write(content)
        return self.left == 0


def _overrides(kind: bytes, data: bytes) -> dict[str, str]:
    """What the header in front of an entry's own header says."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(data.rstrip(b"\0"))}
    if kind == tarfile.GNUTYPE_LONGLINK:
        return {"linkpath": _text(data.rstrip(b"\0"))}
    return {} if kind == tarfile.XGLTYPE else _pax_records(data)


def _pax_records(data: bytes) -> dict[str, str]:
    """Records of the form `LENGTH NAME=VALUE\\n`, where the length counts the whole record (pax(1))."""
    records: dict[str, str] = {}
    while data.strip(b"\0"):
        digits, _, _ = data.partition(b" ")
        if not digits.isdigit() or len(digits) > 6 or not len(digits) + 2 < int(digits) <= len(data):
            raise _broken("a pax header is not well formed")
        name, equals, value = data[len(digits) + 1 : int(digits) - 1].partition(b"=")
        if not equals or name.startswith(b"GNU.sparse."):
            raise _broken("a pax header cannot be read")
        records[_text(name)] = _text(value)
        data = data[int(digits) :]
    return records


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _broken(why: str) -> CoveError:
    return error("INTERNAL_ERROR", f"The archive that the sandbox sent cannot be read: {why}.")
