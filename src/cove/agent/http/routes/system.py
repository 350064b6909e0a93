"""`/health`, `/info` and what else says what this sandbox is and uses."""

import os
import platform
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.clock import timestamp
from cove.agent.http.answers import json_answer, model_answer
from cove.agent.processes import ProcessTable
from cove.agent.state import AgentState, state_of
from cove.models.agent import AGENT_NAME, AgentHealth, AgentInfo, ProcessList
from cove.models.version import VERSION

ENDPOINTS = {
    "health": "GET /health",
    "info": "GET /info",
    "execute": "POST /execute",
    "execute_rich": "POST /execute/rich",
    "commands": "POST /commands/run",
    "files": "GET /files/list",
    "env": "GET /env",
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
    """Every process of the sandbox."""
    entries = ProcessTable().entries()
    return model_answer(ProcessList(processes=entries, count=len(entries)))


def features_of(state: AgentState) -> dict[str, Any]:
    """What this agent can do; false for what the API names and this sandbox has not."""
    return {
        "code_execution": True,
        "rich_output": True,
        "commands": True,
        "files": True,
        "env": True,
        "metrics": True,
        "background": False,
        "streaming": True,
        "terminal": False,
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
