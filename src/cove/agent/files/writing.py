"""Writing files so that a reader sees either the old content or the new one, never a part."""

# A path is text here: pathlib would rewrite what the client sent.
# ruff: noqa: PTH103, PTH116, PTH118, PTH120

import asyncio
import base64
import binascii
import os
import re
import secrets
import stat
from contextlib import suppress
from types import TracebackType
from typing import Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from cove.agent.files.failures import not_regular
from cove.agent.files.paths import kind_of
from cove.models.errors import error
from cove.models.files import MAX_WRITE_BYTES, WriteFile

DEFAULT_MODE = 0o644
_MODE = re.compile(r"0?o?[0-7]{3,4}")
_TEMPORARY_PREFIX = ".cove-"
_TEMPORARY_NAME = re.compile(rb"\.cove-[0-9a-f]{16}\.part")
_COPY_BYTES = 1024 * 1024
# Twice as fast as `binascii`. It also takes the URL alphabet and forgoes padding: see `_from_base64`.
_BASE64: TypeAdapter[bytes] = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))
_NOT_STANDARD = ("-", "_", "\\")


def is_temporary(name: bytes) -> bool:
    """Whether a file of this name is one that is about to replace another."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


class Replacement:
    """A new content for a file: written beside it, then renamed onto it (rename(2) is atomic).

    Leaving the context without `commit` removes what was written.
    """

    def __init__(self, directory: str | int) -> None:
        """`directory` is a path, or a descriptor that stays open as long as this is used; targets are relative to it.

        Raises:
            OSError: no file can be made there.
        """
        name = f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}.part"
        self._directory = directory if isinstance(directory, int) else None
        self._temporary = name if isinstance(directory, int) else os.path.join(directory, name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o600, dir_fd=self._directory)
        self._kept = False
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was written, unless it was put into its place. To be called once, here or by the context."""
        os.close(self._descriptor)
        if self._kept:
            return
        with suppress(OSError):  # the program in the sandbox may have removed it, or its directory
            os.unlink(self._temporary, dir_fd=self._directory)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`.

        Raises:
            OSError: ENOSPC and the like.
        """
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self.size += written
            view = view[written:]

    def commit(self, target: str, *, mode: int, overwrite: bool = True, modified: float | None = None) -> None:
        """Put it in the place of `target`, with permissions `mode`, last modified now or then (seconds).

        Raises:
            OSError: EEXIST when `overwrite` is false and something is there; EXDEV from another file system.
        """
        os.fchmod(self._descriptor, mode)
        if modified is not None:
            os.utime(self._descriptor, (modified, modified))
        if overwrite:
            os.rename(self._temporary, target, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._kept = True
        else:
            # link(2) fails where rename(2) would replace; the temporary name is removed on exit.
            os.link(self._temporary, target, follow_symlinks=False)

    async def copy_to(self, other: "Replacement") -> None:
        """Append all of this to `other`, which may be on another file system."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while chunk := os.read(self._descriptor, _COPY_BYTES):
            other.write(chunk)
            await asyncio.sleep(0)


def decoded_content(request: WriteFile) -> bytes:
    """The bytes to write.

    Raises:
        CoveError: INVALID_REQUEST for an unknown encoding or broken base64; REQUEST_TOO_LARGE.
    """
    encoding = (request.encoding or "utf-8").lower()
    if encoding in ("utf-8", "utf8", "text"):
        data = request.content.encode("utf-8")
    elif encoding == "base64":
        data = _from_base64(request.content)
    else:
        raise error(
            "INVALID_REQUEST",
            f"The encoding {encoding[:40]!r} is not known.",
            remedy="Use `utf-8` or `base64`.",
            field="encoding",
        )
    if len(data) > MAX_WRITE_BYTES:
        raise error(
            "REQUEST_TOO_LARGE",
            f"The content has {len(data)} bytes; at most {MAX_WRITE_BYTES} can be written at once.",
            remedy="Use POST /files/upload.",
            limit_bytes=MAX_WRITE_BYTES,
        )
    return data


def parsed_mode(text: str) -> int:
    """`"0644"` as a number.

    Raises:
        CoveError: INVALID_REQUEST.
    """
    if not _MODE.fullmatch(text):
        raise error(
            "INVALID_REQUEST", "`mode` is not octal.", remedy="Send `mode` like `0644` or `0755`.", field="mode"
        )
    return int(text.replace("o", ""), 8)


def prepared_target(path: str, *, overwrite: bool = True) -> tuple[str, os.stat_result | None]:
    """Where `path` leads through symbolic links, with its parents created, and what is there now.

    Raises:
        CoveError: INVALID_PATH when something else than a regular file is there, or the path names a directory;
            FILE_ALREADY_EXISTS when `overwrite` is false and anything is there.
        OSError: the kernel refused.
    """
    if path.endswith("/"):
        raise error("INVALID_PATH", f"The path names a directory: {path}", remedy="Add a file name.", path=path)
    # A link keeps being a link: its target is what changes.
    target = os.path.realpath(path)
    try:
        status = os.stat(target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        return target, None
    if not overwrite:
        raise error(
            "FILE_ALREADY_EXISTS",
            f"The file exists already: {path}",
            remedy="Send `overwrite: true` to replace it.",
            path=path,
        )
    if not stat.S_ISREG(status.st_mode):
        raise not_regular(path, kind_of(status.st_mode))
    return target, status


def write_file(path: str, data: bytes, *, mode: int, overwrite: bool) -> None:
    """Write a whole file; `mode` counts for a new file, and for an old one unless it is the default.

    Raises:
        CoveError: as `prepared_target`.
        OSError: the kernel refused.
    """
    target, status = prepared_target(path, overwrite=overwrite)
    with Replacement(os.path.dirname(target)) as replacement:
        replacement.write(data)
        replacement.commit(target, mode=kept_mode(status, mode), overwrite=overwrite)


def kept_mode(status: os.stat_result | None, mode: int) -> int:
    """Permissions of a file after a write: clients send the default always, it must not make a script unusable."""
    if status is None or mode != DEFAULT_MODE:
        return mode
    return stat.S_IMODE(status.st_mode)


def _from_base64(text: str) -> bytes:
    if len(text) % 4 == 0 and text.isascii() and not any(character in text for character in _NOT_STANDARD):
        with suppress(ValidationError):  # line breaks, or an error that is described below
            return _BASE64.validate_json(f'"{text}"')
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise error(
            "INVALID_REQUEST",
            "`content` is not base64.",
            remedy="Encode the bytes with the standard alphabet and padding (RFC 4648, section 4).",
            field="content",
        ) from None
