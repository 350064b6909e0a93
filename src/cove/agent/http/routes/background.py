"""Programs in the background: starting them, asking about them, following them, ending them."""

from collections.abc import AsyncGenerator, Mapping
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from cove.agent.clock import timestamp
from cove.agent.engine import Program
from cove.agent.http.answers import model_answer
from cove.agent.http.body import read_body, read_model
from cove.agent.http.disconnect import while_connected
from cove.agent.http.errors import invalid_body
from cove.agent.http.ndjson import MEDIA_TYPE, OutputLines
from cove.agent.http.routes.execution import CODE_REMEDY, MAX_EXECUTE_BODY, check_size
from cove.agent.state import state_of
from cove.models.errors import error
from cove.models.processes import (
    MAX_LOG_WAIT_SECONDS,
    BackgroundCommand,
    BackgroundExecute,
    BackgroundList,
    KillProcess,
    ProcessKilled,
)

MAX_KILL_BODY = 64 * 1024
_STREAMS = ("stdout", "stderr")
_NumberT = TypeVar("_NumberT", int, float)


async def execute(request: Request) -> Response:
    """Start code; answered when it has started."""
    body = await read_model(request, BackgroundExecute, limit=MAX_EXECUTE_BODY, remedy=CODE_REMEDY)
    check_size(body.code, "code")
    return model_answer(await state_of(request).engine.background.start_code(body))


async def run_command(request: Request) -> Response:
    """Start a command; answered when it has started."""
    body = await read_model(request, BackgroundCommand, limit=MAX_EXECUTE_BODY, remedy=CODE_REMEDY)
    check_size(body.command, "command")
    return model_answer(await state_of(request).engine.background.start_command(body))


async def processes(request: Request) -> Response:
    """All that run, and those that have ended lately; the newest first."""
    described = tuple(program.describe() for program in state_of(request).engine.background)
    return model_answer(BackgroundList(processes=described[::-1], count=len(described), timestamp=timestamp()))


async def process(request: Request) -> Response:
    """One of them; `?wait=` waits until it has ended, so many seconds at most."""
    program = _program(request)
    wait = _number(request.query_params, "wait", 0.0, most=MAX_LOG_WAIT_SECONDS)
    if wait and program.running:
        await while_connected(request.receive, program.wait_ended(wait))
    return model_answer(program.describe(detailed=True))


async def logs(request: Request) -> Response:
    """`?stream=` from the byte `?offset=` on; `?wait=` waits so many seconds at most until there is more."""
    program, query = _program(request), request.query_params
    stream = query.get("stream", "stdout")
    if stream not in _STREAMS:
        raise _refusal("stream", f"{stream[:40]!r} is no stream", "Send `stream=stdout` or `stream=stderr`.")
    offset = _number(query, "offset", 0, most=2**53)
    wait = _number(query, "wait", 0.0, most=MAX_LOG_WAIT_SECONDS)
    return model_answer(await while_connected(request.receive, program.read(stream, offset, wait=wait)))


async def events(request: Request) -> Response:
    """Its output from the start and as it comes, one JSON object a line, and its result; as `/execute/events`.

    Closing the connection does not end the program.
    """
    return StreamingResponse(_lines(_program(request)), media_type=MEDIA_TYPE)


async def kill(request: Request) -> Response:
    """End a program, or signal it: `signal` in the body or the query. One that has ended is a success too."""
    identifier = request.path_params.get("process_id") or request.query_params.get("process_id")
    if not identifier:
        raise error("MISSING_PARAMETER", "The query lacks `process_id`.", remedy="Send `?process_id=...`.")
    signal = (await _kill_body(request)).signal
    if signal is None:
        signal = request.query_params.get("signal")
    process_id, done = await state_of(request).engine.background.kill(identifier, signal)
    return model_answer(ProcessKilled(message=done, process_id=process_id, timestamp=timestamp()))


async def _lines(program: Program) -> AsyncGenerator[bytes]:
    lines = OutputLines()
    async for stream, piece in program.follow():
        text = lines.piece(stream, piece)
        if text:
            yield text
    result = program.result()
    for text in lines.ending(result) if result else ():
        yield text


async def _kill_body(request: Request) -> KillProcess:
    # Clients send an empty body with a JSON content type.
    body = await read_body(request, limit=MAX_KILL_BODY)
    if not body.strip():
        return KillProcess()
    try:
        return KillProcess.model_validate_json(body)
    except ValidationError as failure:
        raise invalid_body(failure) from None


def _program(request: Request) -> Program:
    return state_of(request).engine.background.find(request.path_params["process_id"])


def _number(query: Mapping[str, str], name: str, default: _NumberT, *, most: float) -> _NumberT:
    text = query.get(name, "")
    if not text:
        return default
    try:
        value = type(default)(text) if len(text) <= 20 and text.isascii() else None
    except ValueError:
        value = None
    if value is None or not 0 <= value <= most:
        raise _refusal(name, f"`{name}` is {text[:40]!r}", f"Send `{name}` as a number from 0 to {most:g}.")
    return value


def _refusal(field: str, message: str, remedy: str) -> Exception:
    return error("INVALID_REQUEST", f"{message}.", remedy=remedy, field=field)


ROUTES = (
    Route("/execute/background", execute, methods=["POST"]),
    Route("/commands/background", run_command, methods=["POST"]),
    Route("/execute/processes", processes, methods=["GET"]),
    Route("/execute/processes/{process_id}", process, methods=["GET"]),
    Route("/execute/processes/{process_id}/logs", logs, methods=["GET"]),
    Route("/execute/processes/{process_id}/events", events, methods=["GET"]),
    # Three routes for one thing: clients of different age and language use one each.
    Route("/execute/kill/{process_id}", kill, methods=["POST", "DELETE"]),
    Route("/execute/kill", kill, methods=["DELETE", "POST"]),
    Route("/processes/{process_id}/kill", kill, methods=["POST"]),
)
