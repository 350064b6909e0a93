"""Bodies of requests, whole: they hold JSON. Bounded one by one, for each caller, and together."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.types import Receive

from cove.models.errors import error
from cove.server.mcp.bounds import MAX_BODY_BYTES, MAX_BYTES_OF_CALLER, MAX_HELD_BYTES


class Bodies:
    """Counts what is held of bodies while requests are being served."""

    def __init__(self, *, most_of_caller: int = MAX_BYTES_OF_CALLER, most: int = MAX_HELD_BYTES) -> None:
        self._most_of_caller = most_of_caller
        self._most = most
        self._held: dict[str, int] = {}

    @asynccontextmanager
    async def read(self, receive: Receive, owner: str) -> AsyncGenerator[bytes]:
        """The body, which is held for the time of the block.

        Raises:
            CoveError: REQUEST_TOO_LARGE, CAPACITY_EXHAUSTED; INVALID_REQUEST when the client left before its end.
        """
        pieces: list[bytes] = []
        total = 0
        try:
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise error("INVALID_REQUEST", "The request ended before its body did.")
                piece: bytes = message.get("body", b"")
                total += len(piece)
                self._take(owner, len(piece), total)
                pieces.append(piece)
                more = message.get("more_body", False)
            yield b"".join(pieces)
        finally:
            self._give_back(owner, total)

    def _take(self, owner: str, size: int, total: int) -> None:
        self._held[owner] = self._held.get(owner, 0) + size
        if total > MAX_BODY_BYTES:
            raise error("REQUEST_TOO_LARGE", f"The body is larger than {MAX_BODY_BYTES} bytes.", limit=MAX_BODY_BYTES)
        if self._held[owner] > self._most_of_caller or sum(self._held.values()) > self._most:
            raise error(
                "CAPACITY_EXHAUSTED", "The server is busy with too many large requests.", remedy="Try again later."
            )

    def _give_back(self, owner: str, total: int) -> None:
        left = self._held.get(owner, 0) - total
        if left > 0:
            self._held[owner] = left
        else:
            self._held.pop(owner, None)
