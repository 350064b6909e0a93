"""`/health`, `/info` and what else says what this sandbox is and uses."""

import os
import platform
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.clock import timestamp
from cove.agent.http.answers import JSON_TYPE, json_answer, model_answer, model_bytes
from cove.agent.processes import ProcessTable
from cove.agent.state import AgentState, state_of
from cove.models.agent import AGENT_NAME, AgentHealth, AgentInfo, ProcessEntry
from cove.models.processes import BackgroundProcess, MergedProcess, MergedProcesses
from cove.models.version import VERSION

ENDPOINTS = {
    "health": "GET /health",
    "info": "GET /info",
    "execute": "POST /execute",
    "execute_rich": "POST /execute/rich",
    "execute_background": "POST /execute/background",
    "execute_processes": "GET /execute/processes",
    "execute_kill": "POST /execute/kill/{process_id}",
    "commands": "POST /commands/run",
    "commands_background": "POST /commands/background",
    "files": "GET /files/list",
    "archive": "GET /files/archive",
    "env": "GET /env",
    "stream": "WebSocket /execute/stream",
    "command_stream": "WebSocket /commands/stream",
    "terminal": "WebSocket /terminal",
    "terminal_sessions": "GET /terminal/sessions",
    "watch": "WebSocket /files/watch",
    "processes": "GET /processes",
    "metrics": "GET /metrics/snapshot",
}


async def health(request: Request) -> Response:
    """That the agent answers, and what it can do."""
    state = state_of(request)
    return model_answer(
        AgentHealth(
            version=VERSION,
            uptime=round(state.uptime, 3),
            go_version=state.go_version,
            vm_id=state.boot.sandbox_id,
            features=features_of(state),
            active_streams=state.sockets.count,
        )
    )


async def info(request: Request) -> Response:
    """What this sandbox is."""
    state = state_of(request)
    machine = os.uname()
    return model_answer(
        AgentInfo(
            vm_id=state.boot.sandbox_id,
            agent_version=VERSION,
            version=VERSION,
            os="linux",
            arch={"x86_64": "amd64", "aarch64": "arm64"}.get(machine.machine, machine.machine),
            platform=f"linux/{machine.machine} python/{platform.python_version()}",
            start_time=state.started_at,
            uptime=round(state.uptime, 3),
            endpoints=ENDPOINTS,
            features=features_of(state),
            template=state.boot.template,
            isolation=state.boot.isolation,
        )
    )


async def ping(request: Request) -> Response:
    """The shortest sign of life."""
    return json_answer({"message": "pong", "timestamp": timestamp()})


async def index(request: Request) -> Response:
    """Which paths there are."""
    return json_answer({"agent": AGENT_NAME, "version": VERSION, "endpoints": ENDPOINTS})


async def system(request: Request) -> Response:
    """Processor, memory and disk."""
    snapshot = state_of(request).usage.snapshot()
    return json_answer({**snapshot["system"], "process": snapshot["process"], "timestamp": timestamp()})


async def processes(request: Request) -> Response:
    """Every process of the sandbox; the root process of a program in the background carries that program's ids."""
    described = [program.describe() for program in state_of(request).engine.background if program.running]
    roots = {program.pid: program for program in described}
    entries = tuple(_merged(entry, roots.get(entry.pid)) for entry in ProcessTable().entries())
    # Ids that are null would be taken for ids.
    body = model_bytes(MergedProcesses(processes=entries, count=len(entries)), exclude_none=True)
    return Response(body, media_type=JSON_TYPE)


def _merged(entry: ProcessEntry, program: BackgroundProcess | None) -> MergedProcess:
    fields = entry.model_dump()
    if program is not None:
        # A client exists that looks here for programs in the background, and waits while they are `running`.
        ids = {"process_id": program.process_id, "execution_id": program.execution_id, "background_name": program.name}
        fields |= ids | {"status": program.status}
    return MergedProcess(**fields)


def features_of(state: AgentState) -> dict[str, Any]:
    """What this agent can do; false for what the API names and this sandbox has not."""
    return {
        "code_execution": True,
        "rich_output": True,
        "commands": True,
        "files": True,
        "env": True,
        "metrics": True,
        "background": True,
        "streaming": True,
        "terminal": True,
        "desktop": False,
        "languages": list(state.boot.languages),
    }


ROUTES = (
    Route("/health", health, methods=["GET"]),
    Route("/info", info, methods=["GET"]),
    Route("/ping", ping, methods=["GET"]),
    Route("/", index, methods=["GET"]),
    Route("/system", system, methods=["GET"]),
    Route("/processes", processes, methods=["GET"]),
)
