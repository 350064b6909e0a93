"""Downloads: the bytes of a file as they are, in bounded memory."""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack

from starlette.responses import Response, StreamingResponse

from cove.agent.files.reading import CHUNK_BYTES, chunks, opened

_TYPE = "application/octet-stream"


async def download(path: str, *, body: bool = True) -> Response:
    """An answer with the content of `path`; without `body` only its head.

    Raises:
        CoveError: INVALID_PATH for anything but a regular file.
        OSError: the kernel refused.
    """
    with ExitStack() as stack:
        descriptor, status = stack.enter_context(opened(path))
        size = status.st_size
        if not body:
            return Response(media_type=_TYPE, headers={"content-length": str(size)})
        if size <= CHUNK_BYTES:
            first = _whole(descriptor)
            if first is not None:
                return Response(first, media_type=_TYPE)
        # Files of /proc say that they are empty; only what says its size is held to it.
        headers = {"content-length": str(size)} if size else {}
        return StreamingResponse(
            _streamed(descriptor, size or None, stack.pop_all()), media_type=_TYPE, headers=headers
        )


def _whole(descriptor: int) -> bytes | None:
    """All of a small file; None when it turns out not to be small."""
    data = os.pread(descriptor, CHUNK_BYTES + 1, 0)
    if not data:
        return data
    return None if len(data) > CHUNK_BYTES or os.pread(descriptor, 1, len(data)) else data


async def _streamed(descriptor: int, size: int | None, resources: ExitStack) -> AsyncIterator[bytes]:
    with resources:
        async for chunk in chunks(descriptor, size=size):
            yield chunk
