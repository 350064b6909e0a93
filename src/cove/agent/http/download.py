"""Downloads: the bytes of a file as they are, in bounded memory."""

import asyncio
import base64
import binascii
import os
import re
from contextlib import ExitStack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cove.agent.files.reading import CHUNK_BYTES, opened
from cove.agent.http.disconnect import while_connected

_TYPE = "application/octet-stream"
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")


class Download(Response):
    """The content of a regular file, which is opened here and closed when the answer is sent, or cannot be.

    With `double`, a file that is itself canonical base64 is encoded once more: the Hopx clients decode such a
    download without being asked, and the file would arrive changed. Files of more than a chunk are left alone.

    Raises:
        CoveError: INVALID_PATH for anything but a regular file.
        OSError: the kernel refused.
    """

    def __init__(self, path: str, *, double: bool = False) -> None:
        with ExitStack() as resources:
            self._descriptor, status = resources.enter_context(opened(path))
            self._first = os.read(self._descriptor, CHUNK_BYTES)
            # Files of /proc say that they are empty; only what says its size is held to it.
            self._size = status.st_size or None
            if double and len(self._first) == self._size and _is_canonical_base64(self._first):
                self._first = base64.b64encode(self._first)
                self._size = len(self._first)
            self._resources = resources.pop_all()
        super().__init__(media_type=_TYPE, headers={} if self._size is None else {"content-length": str(self._size)})
        if self._size is None:
            # Chunked: `Response` has counted a body that it does not have.
            self.raw_headers = [field for field in self.raw_headers if field[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send head and content, the latter unless only the head was asked for."""
        with self._resources:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await while_connected(receive, self._send_content(send))

    async def _send_content(self, send: Send) -> None:
        remaining = self._size
        chunk = self._first
        while chunk:
            if remaining is not None:
                chunk = chunk[:remaining]
                remaining -= len(chunk)
            if remaining == 0:
                break
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)
            chunk = os.read(self._descriptor, CHUNK_BYTES)
        await send({"type": "http.response.body", "body": chunk, "more_body": False})


def _is_canonical_base64(data: bytes) -> bool:
    if len(data) % 4 or not _BASE64.fullmatch(data):
        return False
    try:
        return base64.b64encode(base64.b64decode(data, validate=True)) == data
    except binascii.Error:
        return False
