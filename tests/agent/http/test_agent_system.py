"""What the agent says of itself, of the sandbox's variables and of its use of resources."""

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cove.agent.app import build_app
from cove.agent.execution.environment import SandboxEnvironment
from cove.models.agent import AgentBoot
from cove.models.environment import MAX_TOTAL_BYTES

if TYPE_CHECKING:
    from conftest import RunningAgent

pytestmark = pytest.mark.anyio


HEALTH = {
    "status": str,
    "agent": str,
    "version": str,
    "uptime": float,
    "go_version": str,
    "vm_id": str,
    "features": dict,
    "active_streams": int,
}
INFO = {
    **dict.fromkeys(("vm_id", "agent", "agent_version", "version", "os", "arch", "platform", "vm_ip", "ip"), str),
    "vm_port": int,
    "port": int,
    "start_time": str,
    "uptime": float,
    "endpoints": dict,
    "features": dict,
}
SNAPSHOT = {
    "uptime_seconds": float,
    **dict.fromkeys(("total_requests", "total_errors", "error_count", "active_executions", "total_executions"), int),
    "requests_total": dict,
    "avg_duration_ms": dict,
    "system": dict,
    "process": dict,
    "cache": dict,
}
CACHE = {**dict.fromkeys(("hits", "misses", "size", "count", "total_cached"), int), "hit_rate": float}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/health", HEALTH),
        ("/info", INFO),
        ("/metrics", SNAPSHOT),
        ("/metrics/snapshot", SNAPSHOT),
        ("/cache/stats", CACHE),
        ("/env", {"env_vars": dict, "count": int, "timestamp": str}),
        ("/system", {"cpu": dict, "memory": dict, "disk": dict}),
    ],
)
async def test_every_field_has_its_type(agent: "RunningAgent", path: str, fields: dict[str, type]) -> None:
    body = (await agent.client.get(path)).json()
    assert {name: type(body.get(name)) for name in fields} == fields
    # Some clients take these for a failure.
    assert not {"error", "status_code"} & set(body)


async def test_go_says_its_version_where_it_is(agent: "RunningAgent", tmp_path: Path) -> None:
    (tmp_path / "go/bin").mkdir(parents=True)
    (tmp_path / "go/bin/go").write_text("#!/bin/sh\n")
    (tmp_path / "go/bin/go").chmod(0o755)
    (tmp_path / "go/VERSION").write_text("go1.2.3\ntime 2026-01-01\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/go").symlink_to("../go/bin/go")
    boot = AgentBoot(sandbox_id="x", template="x", isolation="none", base_environment={"PATH": str(tmp_path / "bin")})
    for languages, version in ((("python", "go"), "go1.2.3"), (("python",), "")):
        app = build_app(boot.model_copy(update={"languages": languages}), agent.engine, SandboxEnvironment())
        assert app.state.agent.go_version == version


async def test_health(agent: "RunningAgent") -> None:
    body = (await agent.client.get("/health")).json()
    assert body["status"] == "healthy"
    assert body["vm_id"] == "1763382095i648uu1o"
    assert body["features"]["languages"] == ["python", "bash"]
    assert body["uptime"] >= 0
    assert body["go_version"] == ""


async def test_info(agent: "RunningAgent") -> None:
    body = (await agent.client.get("/info")).json()
    assert (body["vm_port"], body["template"], body["os"]) == (7777, "code-interpreter", "linux")
    assert body["start_time"].endswith("Z")
    assert body["endpoints"]["health"] == "GET /health"


@pytest.mark.parametrize("path", ["/ping", "/", "/system", "/cache/stats"])
async def test_short_answers(agent: "RunningAgent", path: str) -> None:
    answer = await agent.client.get(path)
    assert answer.status_code == 200
    assert "error" not in answer.json()
    assert answer.headers["x-request-id"]
    assert "server" not in answer.headers


async def test_cache_clear_takes_a_json_type_without_a_body(agent: "RunningAgent") -> None:
    answer = await agent.client.post("/cache/clear", headers={"content-type": "application/json"})
    assert answer.json()["entries_removed"] == 0


async def test_environment(agent: "RunningAgent") -> None:
    client = agent.client
    assert (await client.get("/env")).json()["env_vars"] == {"GIVEN": "1"}
    merged = await client.patch("/env", json={"env_vars": {"A": "b=c\n", "É": "ü"}, "merge": True})
    assert merged.json()["env_vars"] == {"GIVEN": "1", "A": "b=c\n", "É": "ü"}
    assert merged.json()["count"] == 3
    replaced = await client.put("/env", json={"env_vars": {"B": ""}, "timestamp": "now"})
    assert replaced.json()["env_vars"] == {"B": ""}
    assert (await client.delete("/env")).json()["env_vars"] == {}


async def test_environment_is_bounded_as_a_whole(agent: "RunningAgent") -> None:
    half = "x" * (MAX_TOTAL_BYTES * 2 // 3)
    assert (await agent.client.patch("/env", json={"env_vars": {"A": half}})).status_code == 200
    answer = await agent.client.patch("/env", json={"env_vars": {"B": half}})
    assert answer.status_code == 400
    assert set((await agent.client.get("/env")).json()["env_vars"]) == {"GIVEN", "A"}


async def test_processes(agent: "RunningAgent") -> None:
    with subprocess.Popen(["sleep", "1000"], executable="/bin/sleep") as child:
        try:
            body = (await agent.client.get("/processes")).json()
        finally:
            child.kill()
    assert body["count"] == len(body["processes"])
    found = {entry["pid"]: entry for entry in body["processes"]}
    assert found[child.pid]["command"] == "sleep 1000"
    assert found[child.pid]["ppid"] == os.getpid()
    assert found[os.getpid()]["memory_mb"] > 1


async def test_metrics(agent: "RunningAgent") -> None:
    await agent.client.post("/execute", json={"code": "raise SystemExit(4)"})
    await agent.client.get("/nothing/here")
    for path in ("/metrics/snapshot", "/metrics"):
        body = (await agent.client.get(path)).json()
        assert body["total_executions"] == 1
        assert body["active_executions"] == 0
        assert body["requests_total"]["/execute"] == 1
        assert body["requests_total"]["other"] == 1
        assert body["total_errors"] == body["error_count"] == 1
        assert body["avg_duration_ms"]["/execute"] > 0
        assert 0 <= body["system"]["cpu"]["usage_percent"] <= 100
        assert body["system"]["memory"]["total_mb"] == 1024
        assert body["system"]["disk"]["total_mb"] <= 2048
        assert body["process"]["count"] >= 1
        assert body["cache"] == {"size": 0}


async def test_prometheus(agent: "RunningAgent") -> None:
    answer = await agent.client.get("/metrics/prometheus")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert "cove_agent_executions_total 0" in lines
    assert all(line.startswith(("# TYPE cove_agent_", "cove_agent_")) for line in lines)
