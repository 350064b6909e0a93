"""Answers that are produced while they are sent, in bounded memory."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cove.agent.http.disconnect import while_connected


class Pieces(Response):
    """What `content` yields, one piece after the other; it is closed when the client goes away.

    An answer of one piece has a length, a longer one is chunked. When `content` fails in the middle the connection is
    cut, which is the only way left to say that the answer is not whole.
    """

    def __init__(
        self, first: bytes, content: AsyncGenerator[bytes, None], media_type: str, headers: Mapping[str, str] | None
    ) -> None:
        """Use `begin`."""
        super().__init__(first, media_type=media_type, headers=headers)
        self._content = content

    @classmethod
    async def begin(
        cls, content: AsyncGenerator[bytes, None], *, media_type: str, headers: Mapping[str, str] | None = None
    ) -> "Pieces":
        """Take the first piece: what fails until then is an error answer."""
        return cls(await anext(content, b""), content, media_type, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send head and content, the latter unless only the head was asked for."""
        async with aclosing(self._content):
            second = await anext(self._content, None)
            if second is None or scope["method"] == "HEAD":
                await self._start(send, whole=second is None)
                body = b"" if scope["method"] == "HEAD" else self.body
                await send({"type": "http.response.body", "body": body, "more_body": False})
                return
            await self._start(send, whole=False)
            await while_connected(receive, self._send_all(send, second))

    async def _start(self, send: Send, *, whole: bool) -> None:
        headers = [field for field in self.raw_headers if whole or field[0] != b"content-length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})

    async def _send_all(self, send: Send, second: bytes) -> None:
        for piece in (self.body, second):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        async for piece in self._content:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
