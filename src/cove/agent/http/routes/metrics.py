"""`/metrics...`: counters of the agent and figures of the sandbox."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.http.answers import json_answer
from cove.agent.state import AgentState, state_of

_PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def snapshot(request: Request) -> Response:
    """All figures as JSON."""
    return json_answer(_figures(state_of(request)))


async def prometheus(request: Request) -> Response:
    """The same in the text format of Prometheus."""
    return Response("".join(_exposition(_figures(state_of(request)))), media_type=_PROMETHEUS_TYPE)


def _figures(state: AgentState) -> dict[str, Any]:
    counters = state.engine.counters()
    return {
        "uptime_seconds": round(state.uptime, 3),
        "total_requests": state.traffic.total,
        "total_errors": state.traffic.errors,
        "error_count": state.traffic.errors,
        "active_executions": counters.active,
        "total_executions": counters.total,
        "failed_executions": counters.errors,
        "requests_total": state.traffic.counts(),
        "avg_duration_ms": {**state.traffic.average_ms(), **counters.average_ms},
        **state.usage.snapshot(),
        "cache": {"size": 0},
        "active_streams": state.sockets.count,
    }


def _exposition(figures: dict[str, Any]) -> list[str]:
    system = figures["system"]
    samples = [
        ("uptime_seconds", "gauge", figures["uptime_seconds"]),
        ("requests_total", "counter", figures["total_requests"]),
        ("request_errors_total", "counter", figures["total_errors"]),
        ("executions_total", "counter", figures["total_executions"]),
        ("execution_failures_total", "counter", figures["failed_executions"]),
        ("executions_active", "gauge", figures["active_executions"]),
        ("streams_active", "gauge", figures["active_streams"]),
        ("processes", "gauge", figures["process"]["count"]),
        ("cpu_usage_percent", "gauge", system["cpu"]["usage_percent"]),
        ("memory_used_mb", "gauge", system["memory"]["used_mb"]),
        ("memory_total_mb", "gauge", system["memory"]["total_mb"]),
        ("disk_used_mb", "gauge", system["disk"]["used_mb"]),
        ("disk_total_mb", "gauge", system["disk"]["total_mb"]),
    ]
    return [f"# TYPE cove_agent_{name} {kind}\ncove_agent_{name} {value}\n" for name, kind, value in samples]


ROUTES = (
    Route("/metrics/snapshot", snapshot, methods=["GET"]),
    Route("/metrics", snapshot, methods=["GET"]),
    Route("/metrics/prometheus", prometheus, methods=["GET"]),
)
