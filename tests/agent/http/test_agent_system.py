"""What the agent says of itself, of the sandbox's variables and of its use of resources."""

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cove.models.environment import MAX_TOTAL_BYTES

if TYPE_CHECKING:
    from conftest import RunningAgent

pytestmark = pytest.mark.anyio


async def test_health(agent: "RunningAgent") -> None:
    body = (await agent.client.get("/health")).json()
    assert body["status"] == "healthy"
    assert body["vm_id"] == "1763382095i648uu1o"
    assert body["features"]["languages"] == ["python", "bash"]
    assert body["uptime"] >= 0


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
