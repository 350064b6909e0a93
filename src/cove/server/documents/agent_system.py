"""An agent's routes for what the sandbox is and uses, its variables, and what it has not."""

from typing import Any, Final

from cove.models.agent import AgentHealth, AgentInfo
from cove.models.environment import EnvironmentAnswer, EnvironmentChange
from cove.models.processes import MergedProcesses
from cove.server.documents.operation import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    TEXT,
    Body,
    Operation,
    Parameter,
    anything,
    listed,
    record,
)

_TAG: Final = "sandbox"
_TIME: Final = "2026-01-17T12:21:35.120Z"
_SANDBOX: Final = "1763382095i648uu1o"
_FEATURES: Final[dict[str, Any]] = {
    "code_execution": True,
    "background": True,
    "terminal": True,
    "desktop": False,
    "languages": ["python", "javascript", "bash", "go"],
}
_ENDPOINTS: Final[dict[str, Any]] = {"health": "GET /health", "execute": "POST /execute"}
_SHARE: Final = record(total_mb=NUMBER, used_mb=NUMBER, available_mb=NUMBER, usage_percent=NUMBER)
_CPU: Final = record(usage_percent=NUMBER, cores=INTEGER)
_COUNT: Final = record(count=INTEGER, limit=INTEGER)
_A_SHARE: Final[dict[str, Any]] = {
    "total_mb": 1024.0,
    "used_mb": 64.0,
    "available_mb": 960.0,
    "usage_percent": 6.25,
}
_USED: Final[dict[str, Any]] = {
    "cpu": {"usage_percent": 1.5, "cores": 2},
    "memory": _A_SHARE,
    "disk": _A_SHARE,
}
_PROCESSES: Final[dict[str, Any]] = {"count": 3, "limit": 512}
_FIGURES: Final = Body(
    shape=record(
        uptime_seconds=NUMBER,
        total_requests=INTEGER,
        total_errors=INTEGER,
        error_count=INTEGER,
        active_executions=INTEGER,
        total_executions=INTEGER,
        failed_executions=INTEGER,
        requests_total=anything(INTEGER),
        avg_duration_ms=anything(NUMBER),
        system=record(cpu=_CPU, memory=_SHARE, disk=_SHARE),
        process=_COUNT,
        cache=record(size=INTEGER),
        active_streams=INTEGER,
    ),
    example={
        "uptime_seconds": 12.5,
        "total_requests": 3,
        "total_errors": 0,
        "error_count": 0,
        "active_executions": 0,
        "total_executions": 1,
        "failed_executions": 0,
        "requests_total": {"/execute": 1},
        "avg_duration_ms": {"/execute": 4.2},
        "system": _USED,
        "process": _PROCESSES,
        "cache": {"size": 0},
        "active_streams": 0,
    },
)
_CHANGE: Final = Body(shape=EnvironmentChange, example={"env_vars": {"LANG": "C.UTF-8"}})
_VARIABLES: Final = Body(
    shape=EnvironmentAnswer, example={"env_vars": {"LANG": "C.UTF-8"}, "count": 1, "timestamp": _TIME}
)


def _get(path: str, name: str, description: str, answer: Body) -> Operation:
    return Operation(tag=_TAG, method="get", path=path, name=name, description=description, answer=answer)


def _environment(method: str, name: str, description: str, body: Body | None = None) -> Operation:
    return Operation(
        tag=_TAG, method=method, path="/env", name=name, description=description, body=body, answer=_VARIABLES
    )


def _desktop(method: str) -> Operation:
    rest = Parameter(name="rest", description="Any path.", schema=TEXT, required=True, example="vnc/start")
    return Operation(
        tag="desktop",
        method=method,
        path="/desktop/{rest}",
        name=f"desktop_{method}",
        description="There is no desktop: every path below `/desktop/` answers so.",
        parameters=(rest,),
        errors=("DESKTOP_NOT_AVAILABLE",),
    )


SYSTEM_OPERATIONS: Final = (
    _get(
        "/health",
        "health",
        "That the agent answers, and what it can do.",
        Body(
            shape=AgentHealth,
            example={"version": "0.1.0", "uptime": 12.5, "vm_id": _SANDBOX, "features": _FEATURES},
        ),
    ),
    _get(
        "/info",
        "info",
        "What this sandbox is.",
        Body(
            shape=AgentInfo,
            example={
                "vm_id": _SANDBOX,
                "agent_version": "0.1.0",
                "version": "0.1.0",
                "os": "linux",
                "arch": "amd64",
                "platform": "linux/x86_64 python/3.13.1",
                "start_time": _TIME,
                "uptime": 12.5,
                "endpoints": _ENDPOINTS,
                "features": _FEATURES,
                "template": "code-interpreter",
                "isolation": "namespace",
            },
        ),
    ),
    _get(
        "/ping",
        "ping",
        "The shortest sign of life.",
        Body(shape=record(message=TEXT, timestamp=TEXT), example={"message": "pong", "timestamp": _TIME}),
    ),
    _get(
        "/",
        "index",
        "Which paths there are.",
        Body(
            shape=record(agent=TEXT, version=TEXT, endpoints=anything(TEXT)),
            example={"agent": "cove-agent", "version": "0.1.0", "endpoints": _ENDPOINTS},
        ),
    ),
    _get(
        "/system",
        "system",
        "Use of processor, memory and disk.",
        Body(
            shape=record(cpu=_CPU, memory=_SHARE, disk=_SHARE, process=_COUNT, timestamp=TEXT),
            example={**_USED, "process": _PROCESSES, "timestamp": _TIME},
        ),
    ),
    _get(
        "/processes",
        "list_processes",
        "Every process of the sandbox; the root process of a program in the background carries that program's ids.",
        Body(
            shape=MergedProcesses,
            example={
                "processes": [
                    {
                        "pid": 12,
                        "name": "python3",
                        "command": "python3 server.py",
                        "user": "user",
                        "status": "running",
                        "cpu_percent": 0.5,
                        "memory_mb": 12.5,
                        "ppid": 1,
                        "process_id": "cmd_4be1f0c97d2a",
                        "execution_id": "exec_8c1d0f3b7a2e4956",
                    }
                ],
                "count": 1,
            },
        ),
    ),
    _get(
        "/jupyter/sessions",
        "list_kernels",
        "The shared Python kernel, and those of Python programs that run in the background.",
        Body(
            shape=record(
                sessions=listed(
                    record(
                        kernel_id=TEXT,
                        execution_state={**TEXT, "enum": ["busy", "idle"]},
                        connections=INTEGER,
                        last_activity=TEXT,
                    )
                )
            ),
            example={
                "sessions": [
                    {"kernel_id": "python", "execution_state": "idle", "connections": 1, "last_activity": _TIME}
                ]
            },
        ),
    ),
    _get("/metrics/snapshot", "metrics_snapshot", "Counters of the agent and figures of the sandbox.", _FIGURES),
    _get("/metrics", "metrics", "The same as `/metrics/snapshot`.", _FIGURES),
    _get(
        "/metrics/prometheus",
        "metrics_prometheus",
        "The same in the text format of Prometheus.",
        Body(
            shape=TEXT,
            content_type="text/plain",
            example="# TYPE cove_agent_uptime_seconds gauge\ncove_agent_uptime_seconds 12.5\n",
        ),
    ),
    _environment("get", "get_env", "The variables of everything that runs in the sandbox. They are not masked."),
    _environment("put", "replace_env", "Replace all variables.", _CHANGE),
    _environment("patch", "merge_env", "Set some variables and keep the others.", _CHANGE),
    _environment("delete", "clear_env", "Remove all variables."),
    _get(
        "/cache/stats",
        "cache_stats",
        "Results are never cached: all zero.",
        Body(
            shape=record(
                hits=INTEGER, misses=INTEGER, hit_rate=NUMBER, size=INTEGER, count=INTEGER, total_cached=INTEGER
            ),
            example={"hits": 0, "misses": 0, "hit_rate": 0.0, "size": 0, "count": 0, "total_cached": 0},
        ),
    ),
    Operation(
        tag=_TAG,
        method="post",
        path="/cache/clear",
        name="clear_cache",
        description="Results are never cached: nothing to remove.",
        answer=Body(
            shape=record(success=BOOLEAN, message=TEXT, entries_removed=INTEGER),
            example={"success": True, "message": "Nothing is cached.", "entries_removed": 0},
        ),
    ),
    *map(_desktop, ("get", "post", "put", "patch", "delete")),
)
