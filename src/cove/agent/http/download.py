"""Downloads: the bytes of a file as they are, in bounded memory."""

import asyncio
import base64
import binascii
import os
from contextlib import ExitStack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cove.agent.files.reading import CHUNK_BYTES, MAX_READ_BYTES, opened
from cove.agent.http.disconnect import while_connected

_TYPE = "application/octet-stream"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# A multiple of 3: only the last piece of base64 may be padded.
_PIECE_BYTES = CHUNK_BYTES - CHUNK_BYTES % 3


class Download(Response):
    """The content of a regular file, which is opened here and closed when the answer is sent, or cannot be.

    With `double`, a file that is itself canonical base64 is encoded once more: the Hopx clients decode such a
    download without being asked, and the file would arrive changed. Files above `MAX_READ_BYTES` are left alone.

    Raises:
        CoveError: INVALID_PATH for anything but a regular file.
        OSError: the kernel refused.
    """

    def __init__(self, path: str, *, double: bool = False) -> None:
        with ExitStack() as resources:
            self._descriptor, status = resources.enter_context(opened(path))
            self._encode = double and is_canonical_base64(self._descriptor, status.st_size)
            # Files of /proc say that they are empty; only what says its size is held to it.
            self._left = status.st_size or None
            self._resources = resources.pop_all()
        size = (self._left or 0) if not self._encode else 4 * -(-status.st_size // 3)
        super().__init__(media_type=_TYPE, headers={} if self._left is None else {"content-length": str(size)})
        if self._left is None:
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
        while piece := self._next_piece():
            body = base64.b64encode(piece) if self._encode else piece
            await send({"type": "http.response.body", "body": body, "more_body": self._left != 0})
            await asyncio.sleep(0)
        if self._left != 0:
            # Where the size was not known, or the file was cut meanwhile; the latter breaks the connection.
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _next_piece(self) -> bytes:
        """Whole pieces, but for the last; none at the end."""
        wanted = _PIECE_BYTES if self._left is None else min(_PIECE_BYTES, self._left)
        piece = os.read(self._descriptor, wanted)
        if self._left is not None:
            self._left -= len(piece)
        return piece


def is_canonical_base64(descriptor: int, size: int) -> bool:
    """Whether a file is what base64 encoders write (RFC 4648, section 4), no more and no less. Its offset is kept."""
    if not 0 < size <= MAX_READ_BYTES or size % 4:
        return False
    for start in range(0, size, CHUNK_BYTES):
        piece = os.pread(descriptor, CHUNK_BYTES, start)
        last = start + len(piece) >= size
        if (piece[:-4] if last else piece).translate(None, _ALPHABET):
            return False
    tail = os.pread(descriptor, 4, size - 4)
    try:
        return base64.b64encode(base64.b64decode(tail, validate=True)) == tail
    except binascii.Error:
        return False
