"""An agent's WebSockets, and the terminal sessions that they connect to."""

from typing import Any, Final

from cove.models.frames import (
    MAX_COLUMNS,
    MAX_ROWS,
    ChangeFrame,
    CommandFrame,
    CompleteFrame,
    ErrorFrame,
    ExecuteFrame,
    OutputFrame,
    OverflowFrame,
    ResultFrame,
    TerminalExit,
    TerminalInput,
    TerminalOutput,
    TerminalResize,
    TerminalSession,
    WatchFrame,
    WatchingFrame,
)
from cove.server.documents.operation import (
    BOOLEAN,
    INTEGER,
    TEXT,
    Body,
    Operation,
    Parameter,
    Socket,
    listed,
    record,
)

_TAG: Final = "websockets"
_SESSION: Final = "term_4be1f0c97d2a"
_STREAMED: Final = (OutputFrame, ResultFrame, CompleteFrame, ErrorFrame)
_STREAM_RULES: Final = (
    " The first frame says what to run; the socket is closed after `complete`. A frame of type `cancel` or "
    "`interrupt`, and closing the socket, end the program."
)


def _socket(path: str, name: str, description: str, socket: Socket, *parameters: Parameter) -> Operation:
    return Operation(
        tag=_TAG,
        method="get",
        path=path,
        name=name,
        description=description,
        parameters=parameters,
        errors=("RESOURCE_LIMIT_EXCEEDED", "RESOURCE_NOT_FOUND"),
        socket=socket,
    )


def _size(name: str, most: int) -> Parameter:
    return Parameter(
        name=name, description="Of the client's window.", schema={**INTEGER, "minimum": 1, "maximum": most}
    )


_CODE: Final = Socket(client=(ExecuteFrame,), server=_STREAMED)
_KEPT: Final[dict[str, Any]] = {
    "id": _SESSION,
    "cols": 80,
    "rows": 24,
    "pid": 12,
    "attached": True,
    "running": True,
    "exit_code": None,
    "started_at": "2026-01-17T12:21:35.120Z",
}

SOCKET_OPERATIONS: Final = (
    _socket("/execute/stream", "execute_stream", "Run code; its output as it comes." + _STREAM_RULES, _CODE),
    _socket("/stream", "stream", "The same as `/execute/stream`.", _CODE),
    _socket("/stream/ipython", "stream_ipython", "The same for Python, whatever the frame says.", _CODE),
    _socket(
        "/commands/stream",
        "stream_command",
        "Run a command; its output as it comes." + _STREAM_RULES,
        Socket(client=(CommandFrame,), server=_STREAMED),
    ),
    _socket(
        "/terminal",
        "terminal",
        "A shell on a pseudo-terminal. It ends with the connection, unless it has a session.",
        Socket(
            client=(TerminalInput, TerminalResize), server=(TerminalSession, TerminalOutput, TerminalExit, ErrorFrame)
        ),
        _size("cols", MAX_COLUMNS),
        _size("rows", MAX_ROWS),
        Parameter(name="command", description="Shell text to run instead of an interactive shell.", schema=TEXT),
        Parameter(
            name="session",
            description="`new` for a terminal that stays when the client goes; the id of one to come back to it.",
            schema=TEXT,
        ),
    ),
    _socket(
        "/files/watch",
        "watch_files",
        "Changes below a path, as they happen. The first frame says which path.",
        Socket(client=(WatchFrame,), server=(WatchingFrame, ChangeFrame, OverflowFrame, ErrorFrame)),
        Parameter(
            name="ready", description="Send a `watching` frame from when on no change is missed.", schema=BOOLEAN
        ),
    ),
    Operation(
        tag=_TAG,
        method="get",
        path="/terminal/sessions",
        name="list_terminals",
        description="The terminals that can be connected to.",
        answer=Body(
            shape=record(
                sessions=listed(
                    record(
                        id=TEXT,
                        cols=INTEGER,
                        rows=INTEGER,
                        pid=INTEGER,
                        attached=BOOLEAN,
                        running=BOOLEAN,
                        exit_code={"type": ["integer", "null"]},
                        started_at=TEXT,
                    )
                ),
                count=INTEGER,
            ),
            example={"sessions": [_KEPT], "count": 1},
        ),
    ),
    Operation(
        tag=_TAG,
        method="delete",
        path="/terminal/sessions/{name}",
        name="end_terminal",
        description="End a terminal and what runs in it.",
        parameters=(Parameter(name="name", description="Its id.", schema=TEXT, required=True, example=_SESSION),),
        answer=Body(
            shape=record(success=BOOLEAN, message=TEXT, id=TEXT),
            example={"success": True, "message": "The terminal session was ended.", "id": _SESSION},
        ),
        errors=("RESOURCE_NOT_FOUND",),
    ),
)
