"""`/execute...` and `/commands/run`."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.clock import timestamp
from cove.agent.http.answers import json_answer, model_answer
from cove.agent.http.body import read_model
from cove.agent.http.disconnect import while_connected
from cove.agent.state import AgentState, state_of
from cove.models.errors import error
from cove.models.execution import (
    LANGUAGE_ALIASES,
    MAX_CODE_BYTES,
    CommandRequest,
    ExecuteRequest,
    Language,
)

# JSON may take three bytes and more for one of the code; what is over this is over the limit for code as well.
MAX_EXECUTE_BODY = 4 * MAX_CODE_BYTES
CODE_REMEDY = "Write it to a file with POST /files/upload and run that file."


async def execute(request: Request) -> Response:
    """Run code; a failing program is an answer like any other."""
    return await _execute(request, exclude={"rich_outputs"})


async def execute_rich(request: Request) -> Response:
    """Run code; the answer lists all that it displayed."""
    return await _execute(request, exclude=None)


async def run_command(request: Request) -> Response:
    """Run a command."""
    body = await read_model(request, CommandRequest, limit=MAX_EXECUTE_BODY, remedy=CODE_REMEDY)
    check_size(body.command, "command")
    return model_answer(await while_connected(request.receive, state_of(request).engine.run_command(body)))


async def rehearse(request: Request) -> Response:
    """Go once through all that an execution takes, for sandboxes that wait in a pool for their first one."""
    await state_of(request).engine.rehearse()
    return json_answer({"success": True})


async def jupyter_sessions(request: Request) -> Response:
    """The shared Python kernel of the sandbox, and those of Python programs in the background while they run."""
    state = state_of(request)
    if not state.offers(Language.PYTHON):
        return json_answer({"sessions": []})
    busy = state.engine.python_busy
    sessions = [_session("python", busy=busy, last_activity=timestamp() if busy else state.last_python)]
    for program in state.engine.background:
        described = program.describe() if program.running else None
        if described is not None and described.language == Language.PYTHON:
            sessions.append(_session(f"bg-{described.process_id}", busy=True, last_activity=timestamp()))
    return json_answer({"sessions": sessions})


def _session(kernel_id: str, *, busy: bool, last_activity: str) -> dict[str, Any]:
    return {
        "kernel_id": kernel_id,
        "execution_state": "busy" if busy else "idle",
        "connections": 1,
        "last_activity": last_activity,
    }


async def read_execution(request: Request) -> tuple[ExecuteRequest, Language]:
    """The body of a request to run code, checked.

    Raises:
        CoveError: INVALID_JSON, INVALID_REQUEST, REQUEST_TOO_LARGE, UNSUPPORTED_LANGUAGE.
    """
    body = await read_model(request, ExecuteRequest, limit=MAX_EXECUTE_BODY, remedy=CODE_REMEDY)
    check_size(body.code, "code")
    return body, _language(body.language, state_of(request))


async def _execute(request: Request, *, exclude: set[str] | None) -> Response:
    state = state_of(request)
    body, language = await read_execution(request)
    result = await while_connected(request.receive, state.engine.execute(body))
    if language is Language.PYTHON:
        state.last_python = timestamp()
    return model_answer(result, exclude=exclude)


def _language(name: str, state: AgentState) -> Language:
    language = LANGUAGE_ALIASES.get(name.strip().lower())
    if language is None or not state.offers(language):
        raise error(
            "UNSUPPORTED_LANGUAGE",
            f"This sandbox does not run {name[:40]!r}.",
            remedy=f"Languages here: {', '.join(state.boot.languages)}.",
            language=name[:40],
            languages=list(state.boot.languages),
        )
    return language


def check_size(text: str, field: str) -> None:
    """Raise REQUEST_TOO_LARGE when `text`, the content of `field`, is longer than code may be."""
    # Counting bytes is only needed where characters leave it open.
    if len(text) > MAX_CODE_BYTES or (4 * len(text) > MAX_CODE_BYTES and len(text.encode()) > MAX_CODE_BYTES):
        raise error(
            "REQUEST_TOO_LARGE",
            f"`{field}` is larger than {MAX_CODE_BYTES} bytes.",
            remedy=CODE_REMEDY,
            field=field,
            limit_bytes=MAX_CODE_BYTES,
        )


ROUTES = (
    Route("/execute", execute, methods=["POST"]),
    Route("/execute/rich", execute_rich, methods=["POST"]),
    Route("/execute/ipython", execute, methods=["POST"]),
    Route("/commands/run", run_command, methods=["POST"]),
    Route("/rehearsal", rehearse, methods=["POST"]),
    Route("/jupyter/sessions", jupyter_sessions, methods=["GET"]),
)
