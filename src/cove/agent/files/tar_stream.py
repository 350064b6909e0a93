"""Reading a tar archive as it comes, sans-I/O: ustar and pax (pax(1)), and GNU's long names and large numbers.

The standard library's `tarfile` pulls its input, which takes a thread where input arrives on an event loop; its headers
are decoded with its own code.
"""

import tarfile
from typing import NamedTuple, Protocol

BLOCK = tarfile.BLOCKSIZE
MAX_NAME_BYTES = 4095

_MAX_EXTENSION_BYTES = 64 * 1024
_EXTENSIONS = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})
_FILES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_KINDS = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.GNUTYPE_SPARSE: "a sparse file in GNU's format",
}
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd", b"PK": "zip"}


class BrokenArchive(Exception):
    """The archive is not well formed, or holds what is not accepted."""


class Member(NamedTuple):
    """One member, as its headers describe it; names are surrogate-escaped (PEP 383).

    Attributes:
        size: bytes of content that follow; 0 for all but files.
        modified: seconds since the epoch.
        link: target of a symbolic link, or the name of the member that a hard link repeats.
    """

    name: str
    type: bytes
    size: int
    mode: int
    modified: float
    link: str

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.type in _FILES


class Sink(Protocol):
    """Takes what is in the archive, member by member."""

    def begin(self, member: Member) -> None:
        """A member; if it is a file, its content follows."""
        ...

    def content(self, data: memoryview) -> None:
        """The next bytes of the file."""
        ...

    def end(self) -> None:
        """The file is complete."""
        ...


class TarStream:
    """Takes the bytes of an archive and gives its members to a sink.

    Attributes:
        finished: the end mark was seen; what follows it is ignored, as `tar` does.
    """

    def __init__(self, sink: Sink) -> None:
        self.finished = False
        self._sink = sink
        self._header = bytearray()
        self._left = 0
        self._padding = 0
        self._extension: bytearray | None = None
        self._extension_type = b""
        self._in_file = False
        self._overrides: dict[str, str] = {}

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            BrokenArchive: see there. Whatever the sink raises goes through.
        """
        view = memoryview(data)
        while view and not self.finished:
            if self._left:
                view = self._content(view)
            elif self._padding:
                skipped = min(self._padding, len(view))
                self._padding -= skipped
                view = view[skipped:]
            else:
                view = self._collect_header(view)

    def _content(self, view: memoryview) -> memoryview:
        part = view[: self._left]
        self._left -= len(part)
        if self._extension is None:
            self._sink.content(part)
        else:
            self._extension += part
        if not self._left:
            self._complete()
        return view[len(part) :]

    def _complete(self) -> None:
        extension, self._extension = self._extension, None
        if extension is not None:
            self._apply(bytes(extension))
        elif self._in_file:
            self._in_file = False
            self._sink.end()

    def _collect_header(self, view: memoryview) -> memoryview:
        missing = BLOCK - len(self._header)
        self._header += view[:missing]
        if len(self._header) == BLOCK:
            header, self._header = bytes(self._header), bytearray()
            self._begin(header)
        return view[missing:]

    def _begin(self, header: bytes) -> None:
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            if header.count(0) == BLOCK:
                self.finished = True
                return
            raise BrokenArchive(_why_not(header)) from None
        if info.type in _EXTENSIONS:
            self._begin_extension(info)
            return
        member = self._member(info)
        self._left = member.size
        self._padding = -member.size % BLOCK
        self._in_file = member.is_file
        self._sink.begin(member)
        if not self._left:
            self._complete()

    def _begin_extension(self, info: tarfile.TarInfo) -> None:
        if not 0 < info.size <= _MAX_EXTENSION_BYTES:
            raise BrokenArchive(f"an extended header takes {info.size} bytes; 1 to {_MAX_EXTENSION_BYTES} are accepted")
        self._left = info.size
        self._padding = -info.size % BLOCK
        self._extension = bytearray()
        self._extension_type = info.type

    def _apply(self, extension: bytes) -> None:
        """Keep what an extended header says about the next member. Nothing that holds for all members is needed."""
        if self._extension_type == tarfile.GNUTYPE_LONGNAME:
            self._overrides["path"] = _text(extension.rstrip(b"\0"))
        elif self._extension_type == tarfile.GNUTYPE_LONGLINK:
            self._overrides["linkpath"] = _text(extension.rstrip(b"\0"))
        elif self._extension_type == tarfile.XHDTYPE:
            self._overrides |= _records(extension)

    def _member(self, info: tarfile.TarInfo) -> Member:
        overrides, self._overrides = self._overrides, {}
        name = overrides.get("path", info.name)
        if info.type in _KINDS or any(key.startswith("GNU.sparse") for key in overrides):
            kind = _KINDS.get(info.type, "a sparse file in GNU's format")
            raise BrokenArchive(f"{_shown(name)} is {kind}")
        if not (info.type in _FILES or info.isdir() or info.issym() or info.islnk()):
            raise BrokenArchive(f"{_shown(name)} is of the unknown type {info.type!r}")
        link = overrides.get("linkpath", info.linkname)
        if max(len(_bytes(name)), len(_bytes(link))) > MAX_NAME_BYTES or "\0" in name + link:
            raise BrokenArchive(f"the name {_shown(name)} is longer than {MAX_NAME_BYTES} bytes, or holds NUL")
        size = _number(overrides["size"], "size") if "size" in overrides else info.size
        modified = _number(overrides["mtime"], "mtime") if "mtime" in overrides else float(info.mtime)
        if size < 0:
            raise BrokenArchive(f"{_shown(name)} has a negative size")
        return Member(name, info.type, int(size) if info.type in _FILES else 0, info.mode, modified, link)


def _records(data: bytes) -> dict[str, str]:
    """The records of a pax header: `length keyword=value\\n`, the length counting itself."""
    found: dict[str, str] = {}
    data = data.rstrip(b"\0")
    start = 0
    while start < len(data):
        digits, separator, _ = data[start : start + 8].partition(b" ")
        end = start + int(digits) if separator and digits.isdigit() else 0
        record = data[start + len(digits) + 1 : end]
        keyword, equals, value = record[:-1].partition(b"=")
        if end > len(data) or not equals or not record.endswith(b"\n"):
            raise BrokenArchive("an extended header is malformed")
        found[_text(keyword)] = _text(value)
        start = end
    return found


def _number(text: str, what: str) -> float:
    try:
        return int(text) if what == "size" and text.isdecimal() and len(text) < 19 else _finite(text)
    except ValueError:
        raise BrokenArchive(f"an extended header has a malformed {what}") from None


def _finite(text: str) -> float:
    # `float` takes words such as `nan`, and underscores.
    if not text.removeprefix("-").replace(".", "", 1).isdecimal() or len(text) > 40:
        raise ValueError(text)
    return float(text)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _shown(name: str) -> str:
    return repr(_bytes(name[:200]).decode("utf-8", "replace"))


def _why_not(header: bytes) -> str:
    compression = _COMPRESSIONS.get(header[:2])
    if compression is not None:
        return f"it looks like {compression}; send it uncompressed"
    return "a header is not that of a tar archive (its checksum is wrong)"
