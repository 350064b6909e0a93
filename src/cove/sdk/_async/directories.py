"""Whole directories, in and out of a sandbox, each as one tar stream."""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from cove.models.errors import error
from cove.models.files import MAX_WRITE_BYTES, ArchiveExtracted
from cove.sdk import _requests as requests
from cove.sdk._archive_reading import Unpacker
from cove.sdk._archive_writing import Packing, next_piece, packed, packed_files
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._async.primitives import blocking
from cove.sdk._async.wire import Body
from cove.sdk._failures import parse
from cove.sdk._local_files import Progress, report
from cove.sdk._transfers import DirectoryTransfer

_HEADERS = (("Content-Type", "application/x-tar"), ("Transfer-Encoding", "chunked"))


async def upload_directory(
    link: AsyncAgentLink,
    local: Path,
    remote: requests.SandboxPath,
    *,
    timeout: float,
    on_progress: Progress | None,
) -> DirectoryTransfer:
    """What `local` holds, into the directory `remote`."""
    seconds = requests.check_seconds("timeout", timeout)
    if not local.is_dir():
        raise NotADirectoryError(f"{local} is not a directory.")
    packing = Packing()

    body = partial(_body, partial(packed, local, packing), deadline=time.monotonic() + seconds, on_progress=on_progress)
    answer = await _put(link, remote, body, timeout=seconds)
    return DirectoryTransfer(
        message=f"{packing.entries} entries were copied.",
        path=answer.path,
        size=packing.size,
        timestamp="",
        entries=packing.entries,
        skipped=packing.skipped,
    )


async def download_directory(
    link: AsyncAgentLink,
    remote: requests.SandboxPath,
    local: Path,
    *,
    timeout: float,
    max_bytes: int,
    on_progress: Progress | None,
) -> DirectoryTransfer:
    """What the directory `remote` holds, into `local`."""
    call = replace(
        requests.of_file("archive", remote),
        timeout=requests.check_seconds("timeout", timeout),
        max_answer_bytes=max_bytes,
    )
    async with link.stream(call) as pieces:
        local.mkdir(parents=True, exist_ok=True)
        unpacker, done = Unpacker(local), 0
        try:
            async for piece in pieces:
                await blocking(unpacker.feed, piece)
                done += len(piece)
                report(on_progress, done)
            unpacker.finish()
        finally:
            unpacker.close()
    return DirectoryTransfer(
        message=f"{unpacker.entries} entries were copied.",
        path=str(local),
        size=unpacker.size,
        timestamp="",
        entries=unpacker.entries,
        skipped=tuple(unpacker.tree.skipped),
    )


async def write_files(
    link: AsyncAgentLink, files: Iterable[tuple[requests.SandboxPath, str | bytes]], *, mode: str
) -> ArchiveExtracted:
    """Many files from memory, in one request."""
    wanted = [
        (_below_root(path), requests.encoded(content) if isinstance(content, str) else content)
        for path, content in files
    ]
    size = sum(len(content) for _, content in wanted)
    if size > MAX_WRITE_BYTES:
        raise error(
            "REQUEST_TOO_LARGE",
            f"The files have {size} bytes; at most {MAX_WRITE_BYTES} can be written at once.",
            remedy="Put them in a local directory and use files.upload_dir(), which streams it.",
        )
    bits = _mode(mode)
    deadline = time.monotonic() + requests.FILE_SECONDS
    body = partial(_body, partial(packed_files, wanted, mode=bits), deadline=deadline, on_progress=None)
    return await _put(link, "/", body, timeout=requests.FILE_SECONDS)


async def _put(
    link: AsyncAgentLink,
    remote: requests.SandboxPath,
    body: Body,
    *,
    timeout: float,
) -> ArchiveExtracted:
    call = replace(requests.of_file("archive", remote, method="PUT"), timeout=timeout, headers=_HEADERS)
    return parse(ArchiveExtracted, await link.send(call, body=body))


async def _body(
    pack: Callable[[], Iterator[bytes]], *, deadline: float, on_progress: Progress | None
) -> AsyncGenerator[bytes, None]:
    pieces, done = pack(), 0
    while (piece := await blocking(next_piece, pieces)) is not None:
        if time.monotonic() > deadline:
            raise error("TIMEOUT", "The upload took too long.", remedy="Give a longer timeout.")
        yield piece
        done += len(piece)
        report(on_progress, done)


def _below_root(path: requests.SandboxPath) -> str:
    """The name in an archive that is unpacked at the root; relative paths are below /workspace."""
    text = requests.checked_path(path)
    parts = [
        part for part in (text if text.startswith("/") else f"workspace/{text}").split("/") if part not in ("", ".")
    ]
    if ".." in parts or not parts or text.endswith("/"):
        raise error("INVALID_PATH", f"{text[:200]!r} is not the path of a file, or holds `..`.")
    return "/".join(parts)


def _mode(mode: str) -> int:
    if not 1 <= len(mode) <= 4 or not set(mode) <= set("01234567") or int(mode, 8) > 0o777:
        raise error("INVALID_REQUEST", f"mode is {mode[:20]!r}; it must be octal, from 0000 to 0777.")
    return int(mode, 8)
