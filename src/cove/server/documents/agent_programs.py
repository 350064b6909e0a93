"""An agent's routes for code and commands: run at once, in the background, asynchronously."""

from typing import Any, Final

from cove.models.async_executions import AsyncExecutionAccepted, ExecuteAsync
from cove.models.execution import CommandRequest, CommandResult, ExecuteRequest, ExecutionResult
from cove.models.processes import (
    MAX_LOG_WAIT_SECONDS,
    BackgroundCommand,
    BackgroundExecute,
    BackgroundList,
    BackgroundProcess,
    BackgroundStarted,
    KillProcess,
    ProcessKilled,
    ProcessLogs,
)
from cove.server.documents.operation import INTEGER, NUMBER, TEXT, Body, Operation, Parameter

_TAG: Final = "programs"
_TIME: Final = "2026-01-17T12:21:35.120Z"
_PROCESS: Final = "proc_4be1f0c97d2a"
_EXECUTION: Final = "exec_8c1d0f3b7a2e4956"
_EVENTS: Final = (
    '{"type":"stdout","data":"1\\n"}\n'
    '{"type":"result","stdout":"1\\n","stderr":"","exit_code":0,"success":true,"language":"python"}\n'
)
_RUN_ERRORS: Final = ("UNSUPPORTED_LANGUAGE", "INVALID_PATH", "FILE_NOT_FOUND", "FORBIDDEN", "RESOURCE_LIMIT_EXCEEDED")
_SIGNAL: Final = Parameter(
    name="signal",
    description="Number or name of a signal; without one the program and all that it started are ended for certain.",
    schema=TEXT,
    example="SIGTERM",
)
_ID: Final = Parameter(
    name="process_id",
    description="Of the program: `proc_...`, `cmd_...`, or its execution id.",
    schema=TEXT,
    required=True,
    example=_PROCESS,
)
_WAIT: Final = Parameter(
    name="wait",
    description=f"Seconds to wait for news, {MAX_LOG_WAIT_SECONDS:g} at most.",
    schema={**NUMBER, "minimum": 0, "maximum": MAX_LOG_WAIT_SECONDS},
    example=0,
)
_CODE: Final[dict[str, Any]] = {"code": "print(1)", "language": "python", "timeout": 60}
_COMMAND: Final[dict[str, Any]] = {"command": "echo hello", "timeout": 30, "workdir": "/workspace"}
_RESULT: Final[dict[str, Any]] = {
    "stdout": "1\n",
    "stderr": "",
    "exit_code": 0,
    "execution_time": 0.004,
    "success": True,
    "timestamp": _TIME,
    "language": "python",
    "execution_id": _EXECUTION,
}
_RAN: Final = Body(shape=ExecutionResult, example=_RESULT)
_STARTED: Final = Body(
    shape=BackgroundStarted,
    example={
        "process_id": _PROCESS,
        "execution_id": _EXECUTION,
        "status": "running",
        "start_time": _TIME,
        "message": "started",
        "name": None,
    },
)
_DESCRIBED: Final[dict[str, Any]] = {
    "process_id": _PROCESS,
    "execution_id": _EXECUTION,
    "status": "completed",
    "language": "python",
    "pid": 12,
    "start_time": _TIME,
    "started_at": _TIME,
    "end_time": _TIME,
    "completed_at": _TIME,
    "exit_code": 0,
    "duration": 0.2,
    "execution_time": 0.2,
    "stdout": "1\n",
}


def _run(path: str, name: str, description: str) -> Operation:
    return Operation(
        tag=_TAG,
        method="post",
        path=path,
        name=name,
        description=description,
        body=Body(shape=ExecuteRequest, example=_CODE),
        answer=_RAN,
        errors=_RUN_ERRORS,
    )


def _kill(method: str, path: str, name: str, *parameters: Parameter) -> Operation:
    return Operation(
        tag=_TAG,
        method=method,
        path=path,
        name=name,
        description="End a program that runs in the background, or signal it. One that has ended is a success too.",
        parameters=(*parameters, _SIGNAL),
        body=Body(shape=KillProcess, example={"signal": "SIGTERM"}, required=False),
        answer=Body(
            shape=ProcessKilled,
            example={"success": True, "message": "killed", "process_id": _PROCESS, "timestamp": _TIME},
        ),
        errors=("PROCESS_NOT_FOUND",),
    )


RUN_OPERATIONS: Final = (
    _run("/execute", "execute", "Run code; a failing program is an answer like any other. `rich_outputs` is left out."),
    _run("/execute/rich", "execute_rich", "Run code; the answer lists all that it displayed."),
    _run("/execute/ipython", "execute_ipython", "The same as `/execute`."),
    Operation(
        tag=_TAG,
        method="post",
        path="/execute/events",
        name="execute_events",
        description="Run code; its output is answered as it comes, one JSON object a line: `stdout` and `stderr` with "
        "`data`, then one `result` with the fields of `/execute/rich`, or one `error`. Closing the connection ends "
        "the program.",
        body=Body(shape=ExecuteRequest, example=_CODE),
        answer=Body(shape=TEXT, content_type="application/x-ndjson", example=_EVENTS),
        errors=_RUN_ERRORS,
    ),
    Operation(
        tag=_TAG,
        method="post",
        path="/execute/async",
        name="execute_async",
        description="Run code, and have its result POSTed to a URL, also when this server restarts meanwhile. With a "
        "secret, the delivery is signed: `X-HopX-Signature` is the HMAC-SHA256 of `X-HopX-Timestamp` and the body.",
        body=Body(
            shape=ExecuteAsync,
            example={"code": "print(1)", "callback_url": "https://example.com/results", "timeout": 1800},
        ),
        answer=Body(
            shape=AsyncExecutionAccepted,
            example={
                "execution_id": _EXECUTION,
                "status": "queued",
                "callback_url": "https://example.com/results",
                "message": "queued",
                "timestamp": _TIME,
            },
        ),
        errors=(*_RUN_ERRORS, "STORE_UNAVAILABLE", "DISK_FULL"),
    ),
    Operation(
        tag=_TAG,
        method="post",
        path="/commands/run",
        name="run_command",
        description="Run a command: shell text, or with `args` a program.",
        body=Body(shape=CommandRequest, example=_COMMAND),
        answer=Body(
            shape=CommandResult,
            example={"stdout": "hello\n", "exit_code": 0, "execution_time": 0.004, "pid": 12, "command": "echo hello"},
        ),
        errors=_RUN_ERRORS,
    ),
)

BACKGROUND_OPERATIONS: Final = (
    Operation(
        tag=_TAG,
        method="post",
        path="/execute/background",
        name="execute_background",
        description="Start code in an interpreter of its own; answered when it has started.",
        body=Body(shape=BackgroundExecute, example={**_CODE, "name": "training"}),
        answer=_STARTED,
        errors=(*_RUN_ERRORS, "CONFLICT"),
    ),
    Operation(
        tag=_TAG,
        method="post",
        path="/commands/background",
        name="run_command_background",
        description="Start a command; answered when it has started.",
        body=Body(shape=BackgroundCommand, example=_COMMAND),
        answer=_STARTED,
        errors=_RUN_ERRORS,
    ),
    Operation(
        tag=_TAG,
        method="get",
        path="/execute/processes",
        name="list_background",
        description="All programs that run in the background, and those that have ended lately; the newest first.",
        answer=Body(shape=BackgroundList, example={"processes": [_DESCRIBED], "count": 1, "timestamp": _TIME}),
    ),
    Operation(
        tag=_TAG,
        method="get",
        path="/execute/processes/{process_id}",
        name="get_background",
        description="One program; with `wait`, answered when it has ended or the time is over.",
        parameters=(_ID, _WAIT),
        answer=Body(shape=BackgroundProcess, example={**_DESCRIBED, "result": _RESULT}),
        errors=("PROCESS_NOT_FOUND",),
    ),
    Operation(
        tag=_TAG,
        method="get",
        path="/execute/processes/{process_id}/logs",
        name="get_background_logs",
        description="The next part of a program's output.",
        parameters=(
            _ID,
            Parameter(
                name="stream",
                description="Which; stdout where it is absent.",
                schema={**TEXT, "enum": ["stdout", "stderr"]},
            ),
            Parameter(
                name="offset",
                description="Byte to go on from: the last answer's `next_offset`.",
                schema={**INTEGER, "minimum": 0, "maximum": 2**53},
            ),
            _WAIT,
        ),
        answer=Body(
            shape=ProcessLogs,
            example={
                "process_id": _PROCESS,
                "stream": "stdout",
                "text": "1\n",
                "offset": 0,
                "next_offset": 2,
                "complete": True,
                "status": "completed",
            },
        ),
        errors=("PROCESS_NOT_FOUND",),
    ),
    Operation(
        tag=_TAG,
        method="get",
        path="/execute/processes/{process_id}/events",
        name="follow_background",
        description="A program's output from the start and as it comes, in the form of `/execute/events`. Closing the "
        "connection does not end the program.",
        parameters=(_ID,),
        answer=Body(shape=TEXT, content_type="application/x-ndjson", example=_EVENTS),
        errors=("PROCESS_NOT_FOUND",),
    ),
    # Three routes for one thing: clients of different age and language use one each.
    _kill("post", "/execute/kill/{process_id}", "kill", _ID),
    _kill("delete", "/execute/kill/{process_id}", "kill_by_delete", _ID),
    _kill("delete", "/execute/kill", "kill_by_query", _ID),
    _kill("post", "/execute/kill", "kill_by_post_with_query", _ID),
    _kill("post", "/processes/{process_id}/kill", "kill_process", _ID),
)
