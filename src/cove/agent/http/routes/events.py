"""`POST /execute/events`: run code and answer with its output as it comes, one JSON object a line.

Lines: {"type": "stdout" | "stderr", "data": text}, then one {"type": "result", ...} with the fields of `/execute/rich`.
Joined together, the texts of a stream are what the result holds for it. The connection is the life of the program: if
the client closes it, the program is ended.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from cove.agent.clock import timestamp
from cove.agent.http.ndjson import MEDIA_TYPE, OutputLines, line
from cove.agent.http.routes.execution import read_execution
from cove.agent.state import AgentState, state_of
from cove.models.errors import CoveError
from cove.models.execution import ExecuteRequest, ExecutionResult, Language


async def execute_events(request: Request) -> Response:
    """Bad requests are refused with an ordinary error answer, before the first line."""
    state = state_of(request)
    body, language = await read_execution(request)
    return StreamingResponse(_lines(state, body, language), media_type=MEDIA_TYPE)


async def _lines(state: AgentState, body: ExecuteRequest, language: Language) -> AsyncGenerator[bytes]:
    # Not bounded by itself: it takes at most what the engine keeps of both streams.
    pieces: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()

    def take(stream: str, piece: bytes) -> None:
        pieces.put_nowait((stream, piece))

    lines = OutputLines()
    running = asyncio.ensure_future(state.engine.execute(body, on_output=take))
    running.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        while (item := await pieces.get()) is not None:
            text = lines.piece(*item)
            if text:
                yield text
        for text in _ending(running, lines):
            yield text
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, CoveError):
            await running
        if language is Language.PYTHON:
            state.last_python = timestamp()


def _ending(running: asyncio.Future[ExecutionResult], lines: OutputLines) -> list[bytes]:
    try:
        result = running.result()
    except CoveError as problem:
        fields = {"code": problem.code, "message": problem.message, "remedy": problem.remedy}
        return [line({"type": "error", **fields, "details": problem.details})]
    return lines.ending(result)


ROUTES = (Route("/execute/events", execute_events, methods=["POST"]),)
