"""Reading regular files, and only those: opening a device or a FIFO can block or have effects."""

# A path is text here: pathlib would rewrite what the client sent.
# ruff: noqa: PTH116

import asyncio
import base64
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager

from cove.agent.files.failures import not_regular
from cove.agent.files.paths import kind_of, shown
from cove.models.errors import CoveError, error
from cove.models.files import FileContent

MAX_READ_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
_BYTES_BETWEEN_TURNS = 4 * 1024 * 1024


@contextmanager
def opened(path: str) -> Generator[tuple[int, os.stat_result]]:
    """A descriptor of the regular file `path`, and its status.

    Raises:
        CoveError: INVALID_PATH for anything but a regular file.
        OSError: the kernel refused.
    """
    _require_regular(os.stat(path).st_mode, path)
    # The file may have been exchanged meanwhile: O_NONBLOCK keeps a FIFO from blocking, fstat finds it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        _require_regular(status.st_mode, path)
        yield descriptor, status
    finally:
        os.close(descriptor)


async def read_content(path: str, *, offset: int = 0, limit: int | None = None) -> FileContent:
    """Bytes `offset` to `offset + limit` of the file, as text where they are UTF-8 and as base64 where not.

    Raises:
        CoveError: INVALID_PATH, or REQUEST_TOO_LARGE for more than `MAX_READ_BYTES`.
        OSError: the kernel refused.
    """
    with opened(path) as (descriptor, status):
        wanted = max(0, status.st_size - offset) if limit is None else limit
        if limit is None and wanted > MAX_READ_BYTES:
            raise _too_long(path, wanted)
        # Files of /proc say that they are empty: the end is where read(2) says it is.
        data = await _read_up_to(descriptor, offset, MAX_READ_BYTES + 1 if limit is None else limit)
    if len(data) > MAX_READ_BYTES:
        raise _too_long(path, len(data))
    content, encoding = _as_text(data)
    return FileContent(content=content, path=shown(path), size=max(status.st_size, len(data)), encoding=encoding)


async def _read_up_to(descriptor: int, offset: int, limit: int) -> bytes:
    limit = min(limit, MAX_READ_BYTES + 1)
    os.lseek(descriptor, offset, os.SEEK_SET)
    data = bytearray()
    turn = _BYTES_BETWEEN_TURNS
    while len(data) < limit:
        chunk = os.read(descriptor, min(CHUNK_BYTES, limit - len(data)))
        if not chunk:
            break
        data += chunk
        if len(data) >= turn:
            turn += _BYTES_BETWEEN_TURNS
            await asyncio.sleep(0)
    return bytes(data)


def _as_text(data: bytes) -> tuple[str, str]:
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii"), "base64"


def _require_regular(mode: int, path: str) -> None:
    if not stat.S_ISREG(mode):
        raise not_regular(path, kind_of(mode))


def _too_long(path: str, size: int) -> CoveError:
    path = shown(path)
    return error(
        "REQUEST_TOO_LARGE",
        f"The file has {size} bytes; at most {MAX_READ_BYTES} can be read at once: {path}",
        remedy="Use GET /files/download, or `offset` and `limit`.",
        path=path,
        limit_bytes=MAX_READ_BYTES,
    )
