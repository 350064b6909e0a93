"""`/terminal`: a shell on a pseudo-terminal (contract §4.4), and the sessions that outlive their client.

Query of the handshake, all of it optional: `cols`, `rows`; `command` instead of an interactive shell; `session=new` for
a terminal that stays when the client goes, `session=term_...` to come back to one.
"""

import asyncio

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.http.answers import json_answer
from cove.agent.http.errors import invalid_body
from cove.agent.http.websocket import Disconnected, WebSocket
from cove.agent.http.websocket_frames import ENDING_PATIENCE, encoded, error_frame, receive_object
from cove.agent.http.websocket_handshake import Handshake
from cove.agent.http.websocket_routes import Handler, WebSocketRoute, plain_routes
from cove.agent.state import AgentState, state_of
from cove.agent.terminals.registry import Terminals
from cove.agent.terminals.terminal import Terminal
from cove.agent.terminals.view import View
from cove.models.errors import error
from cove.models.frames import (
    MAX_COLUMNS,
    MAX_ROWS,
    TerminalExit,
    TerminalFrame,
    TerminalInput,
    TerminalOutput,
    TerminalSession,
)

DEFAULT_COLUMNS = 80
DEFAULT_ROWS = 24
MAX_COMMAND_CHARACTERS = 64 * 1024
TAKEN_OVER = 4001
"""Close code: another client has connected to the session."""
_frames: TypeAdapter[TerminalFrame] = TypeAdapter(TerminalFrame)


def open_terminal(state: AgentState, handshake: Handshake) -> Handler:
    """Start a terminal or find the one that is asked for."""
    arguments = handshake.arguments()
    columns = _size(arguments, "cols", MAX_COLUMNS)
    rows = _size(arguments, "rows", MAX_ROWS)
    name = arguments.get("session", "")
    if name and name != "new":
        terminal = state.terminals.find(name)
        terminal.resize(columns=columns or terminal.columns, rows=rows or terminal.rows)
    else:
        name, terminal = state.terminals.start(
            columns=columns or DEFAULT_COLUMNS,
            rows=rows or DEFAULT_ROWS,
            command=_command(arguments),
            kept=name == "new",
        )
    return lambda socket: _attend(socket, state.terminals, name, terminal)


async def list_sessions(request: Request) -> Response:
    """The terminals that can be connected to."""
    sessions = [
        {
            "id": name,
            "cols": terminal.columns,
            "rows": terminal.rows,
            "pid": terminal.pid,
            "attached": terminal.attached,
            "running": terminal.exit_code is None,
            "exit_code": terminal.exit_code,
            "started_at": terminal.started_at,
        }
        for name, terminal in state_of(request).terminals.kept().items()
    ]
    return json_answer({"sessions": sessions, "count": len(sessions)})


async def end_session(request: Request) -> Response:
    """End a terminal and what runs in it."""
    terminals = state_of(request).terminals
    name = request.path_params["name"]
    terminals.find(name)
    await terminals.end(name)
    return json_answer({"success": True, "message": "The terminal session was ended.", "id": name})


async def _attend(socket: WebSocket, terminals: Terminals, name: str, terminal: Terminal) -> None:
    """Show the terminal to one client until one of both has ended."""
    terminals.claim(name)
    view = terminal.attach()
    showing = asyncio.ensure_future(_show(socket, name, terminal, view))
    typing = asyncio.ensure_future(_type(socket, terminal))
    # Who types into a program that does not read is not heard until it does.
    leaving = asyncio.ensure_future(socket.wait_lost())
    tasks = (showing, typing, leaving)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        terminal.detach(view)
        seen = not showing.cancelled() and showing.exception() is None and not view.displaced
        await terminals.release(name, terminal, seen=seen)
    if view.displaced:
        await socket.close(TAKEN_OVER, "another client has connected to this session")
    for task in (showing, typing):
        if not task.cancelled():
            task.result()


async def _show(socket: WebSocket, name: str, terminal: Terminal, view: View) -> None:
    """Send output until the program has ended, or another client has taken over."""
    if terminal.kept:
        await socket.send(encoded(TerminalSession(id=name, cols=terminal.columns, rows=terminal.rows)))

    def output() -> bytes:
        text = view.take()
        return encoded(TerminalOutput(data=text)) if text else b""

    while True:
        await view.news.wait()
        view.news.clear()
        while not view.empty:
            await socket.send_latest(output)
        if view.displaced:
            return
        if terminal.exit_code is not None:
            await socket.send(encoded(TerminalExit(code=terminal.exit_code)), patience=ENDING_PATIENCE)
            return


async def _type(socket: WebSocket, terminal: Terminal) -> None:
    """Do what the client's frames say, as long as it is there."""
    while True:
        try:
            frame = _frames.validate_python(await receive_object(socket))
        except Disconnected:
            return
        except ValidationError as failure:
            await socket.send(error_frame(invalid_body(failure)))
            continue
        if isinstance(frame, TerminalInput):
            await terminal.write(frame.data.encode("utf-8", "replace"))
        else:
            terminal.resize(columns=frame.cols, rows=frame.rows)


def _size(arguments: dict[str, str], field: str, most: int) -> int | None:
    text = arguments.get(field, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= most or len(text) > 9:
        raise error(
            "INVALID_REQUEST", f"`{field}` is not a number from 1 to {most}.", remedy=f"Correct `{field}`.", field=field
        )
    return int(text)


def _command(arguments: dict[str, str]) -> str | None:
    command = arguments.get("command") or None
    if command is not None and ("\0" in command or len(command) > MAX_COMMAND_CHARACTERS):
        raise error(
            "INVALID_REQUEST",
            f"`command` contains NUL or is longer than {MAX_COMMAND_CHARACTERS} characters.",
            remedy="Write it to a file and run that file.",
            field="command",
        )
    return command


WEBSOCKETS = (WebSocketRoute("/terminal", open_terminal),)
ROUTES = (
    *plain_routes(WEBSOCKETS),
    Route("/terminal/sessions", list_sessions, methods=["GET"]),
    Route("/terminal/sessions/{name}", end_session, methods=["DELETE"]),
)
