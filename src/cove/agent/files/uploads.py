"""Uploads: `multipart/form-data` streamed to disk, its parts in any order (RFC 7578)."""

# A path is text here: pathlib would rewrite what the client sent.
# ruff: noqa: PTH119, PTH120

import errno
import os
from contextlib import ExitStack
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from cove.agent.files.paths import resolved
from cove.agent.files.writing import DEFAULT_MODE, Replacement, kept_mode, prepared_target
from cove.models.errors import CoveError, error

_MAX_PARTS = 64
_MAX_FIELD_BYTES = 4096
_FALLBACK_DIRECTORY = "/tmp"


class Upload:
    """One upload on its way to disk.

    Feed it the body with `write`, then `finish`. Leaving the context removes what was not finished.
    """

    def __init__(self, content_type: str, *, workspace: str) -> None:
        """Raises: CoveError INVALID_REQUEST when the body is not a multipart form."""
        self._workspace = workspace
        self._parser = MultipartParser(_boundary(content_type), _callbacks(self), max_header_count=16)
        self._cleanup = ExitStack()
        self._file: Replacement | None = None
        self._filename = ""
        self._filename_of_part = ""
        self._path = bytearray()
        self._has_path = False
        self._part = ""
        self._parts = 0
        self._header = bytearray()
        self._value = bytearray()
        self._complete = False

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *failure: Any) -> None:
        self._cleanup.close()

    @property
    def path(self) -> str:
        """Where the file shall go; empty while that is not known."""
        if self._has_path and self._part != "path":
            return resolved(_text(self._path), workspace=self._workspace)
        return ""

    def write(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            CoveError: INVALID_REQUEST or INVALID_PATH.
            OSError: the file cannot be written.
        """
        try:
            self._parser.write(data)
        except FormParserError:
            raise _malformed("it cannot be parsed") from None

    async def finish(self) -> tuple[str, int]:
        """Put the file into its place; the answer is its path and size in bytes.

        Raises:
            CoveError: MISSING_PARAMETER, INVALID_REQUEST, INVALID_PATH.
            OSError: the file cannot be put there.
        """
        if not self._complete:
            raise _malformed("it ends before its last boundary")
        if self._file is None:
            raise _missing("file")
        path = self.path or self._default_path()
        target, status = prepared_target(path)
        await _place(self._file, target, mode=kept_mode(status, DEFAULT_MODE))
        return path, self._file.size

    def part_begins(self) -> None:
        """A part starts; its headers follow."""
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise _malformed(f"it has more than {_MAX_PARTS} parts")
        self._part = ""
        self._filename_of_part = ""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """Bytes of a header's name."""
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """Bytes of a header's value."""
        self._value += data[start:end]

    def header_ends(self) -> None:
        """A header is complete."""
        if bytes(self._header).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value).decode("latin-1"))
            self._part = options.get(b"name", b"").decode("latin-1")
            self._filename_of_part = _text(options.get(b"filename", b""))
        self._header.clear()
        self._value.clear()

    def headers_end(self) -> None:
        """The content of the part follows."""
        if self._part == "path":
            if self._has_path:
                raise _malformed("it has two parts named `path`")
            self._has_path = True
        elif self._part == "file":
            if self._file is not None:
                raise _malformed("it has two parts named `file`")
            self._filename = self._filename_of_part
            self._file = self._cleanup.enter_context(self._opened())

    def part_data(self, data: bytes, start: int, end: int) -> None:
        """Bytes of a part's content."""
        if self._part == "file" and self._file is not None:
            self._file.write(memoryview(data)[start:end])
        elif self._part == "path":
            self._path += data[start:end]
            if len(self._path) > _MAX_FIELD_BYTES:
                raise error("INVALID_PATH", f"The path takes more than {_MAX_FIELD_BYTES} bytes.")

    def part_ends(self) -> None:
        """A part is complete."""
        self._part = ""

    def ends(self) -> None:
        """The last boundary was seen."""
        self._complete = True

    def _opened(self) -> Replacement:
        if self._has_path:
            target, _ = prepared_target(resolved(_text(self._path), workspace=self._workspace))
            return Replacement(os.path.dirname(target))
        # The path comes after the file: most likely it lies below the workspace.
        try:
            return Replacement(self._workspace)
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EROFS):
                raise
            return Replacement(_FALLBACK_DIRECTORY)

    def _default_path(self) -> str:
        name = os.path.basename(self._filename)
        if name in ("", ".", ".."):
            raise _missing("path")
        return resolved(name, workspace=self._workspace)


async def _place(file: Replacement, target: str, *, mode: int) -> None:
    try:
        file.commit(target, mode=mode)
    except OSError as failure:
        if failure.errno != errno.EXDEV:
            raise
        with Replacement(os.path.dirname(target)) as near:
            await file.copy_to(near)
            near.commit(target, mode=mode)


def _callbacks(upload: Upload) -> Any:
    return {
        "on_part_begin": upload.part_begins,
        "on_header_field": upload.header_field,
        "on_header_value": upload.header_value,
        "on_header_end": upload.header_ends,
        "on_headers_finished": upload.headers_end,
        "on_part_data": upload.part_data,
        "on_part_end": upload.part_ends,
        "on_end": upload.ends,
    }


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise error(
            "INVALID_REQUEST",
            "The body is not a multipart form.",
            remedy="Send `multipart/form-data` with a field `path` and a part `file`.",
        )
    return boundary


def _text(data: bytes | bytearray) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise error("INVALID_PATH", "The path is not UTF-8.") from None


def _malformed(why: str) -> CoveError:
    return error("INVALID_REQUEST", f"The multipart body is malformed: {why}.", remedy="Send one part named `file`.")


def _missing(name: str) -> CoveError:
    return error("MISSING_PARAMETER", f"The form lacks `{name}`.", remedy=f"Send a part named `{name}`.", field=name)
