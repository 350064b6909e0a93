"""`POST /execute/events`: run code and answer with its output as it comes, one JSON object a line.

Lines: {"type": "stdout" | "stderr", "data": text}, then one {"type": "result", ...} with the fields of `/execute/rich`.
Joined together, the texts of a stream are what the result holds for it. The connection is the life of the program: if
the client closes it, the program is ended.
"""

import asyncio
import codecs
import contextlib
import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from cove.agent.clock import timestamp
from cove.agent.http.routes.execution import read_execution
from cove.agent.state import AgentState, state_of
from cove.models.errors import CoveError
from cove.models.execution import ExecuteRequest, ExecutionResult, Language

_MEDIA_TYPE: Final = "application/x-ndjson"


async def execute_events(request: Request) -> Response:
    """Bad requests are refused with an ordinary error answer, before the first line."""
    state = state_of(request)
    body, language = await read_execution(request)
    return StreamingResponse(_lines(state, body, language), media_type=_MEDIA_TYPE)


async def _lines(state: AgentState, body: ExecuteRequest, language: Language) -> AsyncGenerator[bytes]:
    # Not bounded by itself: it takes at most what the engine keeps of both streams.
    pieces: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()

    def take(stream: str, piece: bytes) -> None:
        pieces.put_nowait((stream, piece))

    texts = {"stdout": _Text(), "stderr": _Text()}
    running = asyncio.ensure_future(state.engine.execute(body, on_output=take))
    running.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        while (item := await pieces.get()) is not None:
            stream, piece = item
            text = texts[stream].feed(piece)
            if text:
                yield _line({"type": stream, "data": text})
        for line in _ending(running, texts):
            yield line
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, CoveError):
            await running
        if language is Language.PYTHON:
            state.last_python = timestamp()


def _ending(running: asyncio.Future[ExecutionResult], texts: "dict[str, _Text]") -> list[bytes]:
    """What is left to say of each stream (marks of truncation, notes of ours), and the result."""
    try:
        result = running.result()
    except CoveError as problem:
        fields = {"code": problem.code, "message": problem.message, "remedy": problem.remedy}
        return [_line({"type": "error", **fields, "details": problem.details})]
    lines: list[bytes] = []
    for stream, whole in (("stdout", result.stdout), ("stderr", result.stderr)):
        rest = texts[stream].missing_of(whole)
        if rest:
            lines.append(_line({"type": stream, "data": rest}))
    return [*lines, b'{"type":"result",' + result.model_dump_json(by_alias=True).encode().removeprefix(b"{") + b"\n"]


class _Text:
    """One stream as text, however its bytes are cut."""

    def __init__(self) -> None:
        self._decode = partial(codecs.getincrementaldecoder("utf-8")("replace").decode)
        self._characters = 0

    def feed(self, piece: bytes) -> str:
        """The text that `piece` completes."""
        text = self._decode(piece)
        self._characters += len(text)
        return text

    def missing_of(self, whole: str) -> str:
        """What of `whole` was not said yet."""
        return whole[self._characters :]


def _line(event: dict[str, object]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


ROUTES = (Route("/execute/events", execute_events, methods=["POST"]),)
