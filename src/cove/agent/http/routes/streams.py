"""`/execute/stream`, `/stream`, `/stream/ipython` and `/commands/stream`: a program's output as it comes.

The client's first frame says what to run; `stdout` and `stderr` frames, `result` and `complete` are sent, then the
socket is closed (contract §4.4). The connection is the life of the program: when the client goes, or sends a frame of
type `cancel` or `interrupt`, it is ended.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from cove.agent.clock import timestamp
from cove.agent.engine import OutputFlow
from cove.agent.http.errors import invalid_body
from cove.agent.http.streamed_output import StreamedOutput
from cove.agent.http.websocket import Disconnected, WebSocket
from cove.agent.http.websocket_frames import ENDING_PATIENCE, encoded, error_frame, receive_object
from cove.agent.http.websocket_handshake import Handshake
from cove.agent.http.websocket_routes import Handler, WebSocketRoute, plain_routes
from cove.agent.state import AgentState
from cove.models.errors import CoveError, error
from cove.models.execution import CommandRequest, CommandResult, ExecuteRequest, ExecutionResult
from cove.models.frames import CommandFrame, CompleteFrame, ExecuteFrame, ResultFrame

FIRST_FRAME_SECONDS = 60.0
CANCELLED_EXIT_CODE = 130
"""128 + SIGINT, as shells say it."""
_END_SECONDS: Final = 5.0
_ORDERS: Final = ("cancel", "interrupt")
# Clients exist that take messages of less than 1 MiB only, and close the connection otherwise.
_MAX_RESULT_BYTES: Final = 1_000_000
_RICH_FIELDS: Final = ("png", "html", "json_output", "result")

FrameT = TypeVar("FrameT", ExecuteFrame, CommandFrame)
_Result = ExecutionResult | CommandResult
_Start = Callable[[OutputFlow], Awaitable[_Result]]


def execute_stream(state: AgentState, handshake: Handshake) -> Handler:
    """Code in any language."""
    return lambda socket: _execute(socket, state, None)


def ipython_stream(state: AgentState, handshake: Handshake) -> Handler:
    """Python code, whatever the frame says."""
    return lambda socket: _execute(socket, state, "python")


def command_stream(state: AgentState, handshake: Handshake) -> Handler:
    """A command."""
    return lambda socket: _command(socket, state)


async def _execute(socket: WebSocket, state: AgentState, language: str | None) -> None:
    frame = await _first_frame(socket, ExecuteFrame)
    if frame is None:
        return
    fields = frame.model_dump(exclude={"type"})
    request = ExecuteRequest.model_validate(fields if language is None else {**fields, "language": language})
    try:
        await _run(socket, lambda flow: state.engine.execute(request, flow=flow))
    finally:
        if request.language.startswith("py"):
            state.last_python = timestamp()


async def _command(socket: WebSocket, state: AgentState) -> None:
    frame = await _first_frame(socket, CommandFrame)
    if frame is not None:
        request = CommandRequest.model_validate(frame.model_dump(exclude={"type"}))
        await _run(socket, lambda flow: state.engine.run_command(request, flow=flow))


async def _first_frame(socket: WebSocket, model: type[FrameT]) -> FrameT | None:
    """What to run; None when the client was told that it cannot be."""
    try:
        async with asyncio.timeout(FIRST_FRAME_SECONDS):
            fields = await receive_object(socket)
        return model.model_validate(fields)
    except TimeoutError:
        await _fail(socket, error("TIMEOUT", f"No frame came for {FIRST_FRAME_SECONDS:.0f} s."))
    except ValidationError as failure:
        await _fail(socket, invalid_body(failure))
    return None


async def _run(socket: WebSocket, start: _Start) -> None:
    """Run one program for the client of `socket`."""
    output = StreamedOutput()
    running = asyncio.ensure_future(start(output))
    running.add_done_callback(lambda _: output.end())
    orders = asyncio.ensure_future(_obey(socket, running))
    try:
        await output.send(socket)
        await _send_end(socket, running, output)
    finally:
        orders.cancel()
        running.cancel()
        output.discard()
        await asyncio.wait([orders, running], timeout=_END_SECONDS)
        if running.done() and not running.cancelled():
            running.exception()


async def _obey(socket: WebSocket, running: "asyncio.Future[_Result]") -> None:
    """End the program when the client says so, or has gone."""
    with contextlib.suppress(Disconnected):
        while (await receive_object(socket)).get("type") not in _ORDERS:
            continue
    running.cancel()


async def _send_end(socket: WebSocket, running: "asyncio.Future[_Result]", output: StreamedOutput) -> None:
    try:
        result = running.result()
    except CoveError as failure:
        await _fail(socket, failure)
        return
    except asyncio.CancelledError:
        ending = ResultFrame(exit_code=CANCELLED_EXIT_CODE, execution_time=0.0, success=False)
    else:
        if not output.has_sent("stdout"):
            await output.send_notes(socket, "stdout", result.stdout)
        await output.send_notes(socket, "stderr", result.stderr)
        ending = _result_frame(result)
    message, left_out = _bounded(ending)
    if left_out:
        await output.send_notes(socket, "stderr", f"[left out, too large for a stream: {', '.join(left_out)}]\n")
    await socket.send(message, patience=ENDING_PATIENCE)
    await socket.send(encoded(CompleteFrame(success=ending.success)), patience=ENDING_PATIENCE)


async def _fail(socket: WebSocket, failure: CoveError) -> None:
    await socket.send(error_frame(failure), patience=ENDING_PATIENCE)
    await socket.send(encoded(CompleteFrame(success=False)), patience=ENDING_PATIENCE)


def _result_frame(result: _Result) -> ResultFrame:
    names = set(ResultFrame.model_fields) - {"type"}
    fields: dict[str, Any] = {name: value for name, value in result if name in names}
    return ResultFrame(**fields)


def _bounded(frame: ResultFrame) -> tuple[bytes, list[str]]:
    """The message for `frame`, and what of its displayed objects had to be left out for clients to take it."""
    message = encoded(frame)
    left_out: list[str] = []
    for name in _RICH_FIELDS:
        if len(message) <= _MAX_RESULT_BYTES:
            break
        if getattr(frame, name) is not None:
            frame = frame.model_copy(update={name: None})
            left_out.append(name.removesuffix("_output"))
            message = encoded(frame)
    return message, left_out


WEBSOCKETS = (
    WebSocketRoute("/execute/stream", execute_stream),
    WebSocketRoute("/stream", execute_stream),
    WebSocketRoute("/stream/ipython", ipython_stream),
    WebSocketRoute("/commands/stream", command_stream),
)
ROUTES = plain_routes(WEBSOCKETS)
