"""The REST API of sandboxes and templates, over a real socket."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.core.world import until
from tests.server.conftest import Plane, Running

from cove.models.errors import error

pytestmark = pytest.mark.anyio

CODE = {"template_name": "code-interpreter"}


async def create(plane: Plane, **fields: object) -> dict[str, Any]:
    answer = await plane.client.post("/v1/sandboxes", json={**CODE, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_sandbox_from_create_to_kill(plane: Plane) -> None:
    made = await create(plane, timeout_seconds=60, internet_access=True, env_vars={"A": "1"})
    assert made["status"] == "running"
    assert made["public_host"] == made["direct_url"] == f"http://127.0.0.1:5555/sandboxes/{made['id']}"
    assert made["resources"] == {"vcpu": 2, "memory_mb": 1024, "disk_mb": 2048}
    assert (made["organization_id"], made["object"], made["timeout_seconds"]) == (1, "sandbox", 60)
    assert made["internet_access"] is False
    assert isinstance(made["template_id"], str)
    lifetime = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lifetime == timedelta(seconds=60)
    assert made["created_at"].endswith("Z")
    assert plane.control.tokens.verify(made["auth_token"]) == made["id"]
    path = f"/v1/sandboxes/{made['id']}"
    got = (await plane.client.get(path)).json()
    hidden = {"auth_token", "token_expires_at", "request_id"}
    assert {k: v for k, v in got.items() if k not in hidden} == {k: v for k, v in made.items() if k not in hidden}
    killed = await plane.client.delete(path)
    assert (killed.status_code, killed.json()["status"]) == (200, "deleted")
    assert plane.host.ids == set()
    gone = await plane.client.get(path)
    assert gone.status_code == 404
    assert "was killed" in gone.json()["message"]
    assert gone.json()["sandbox_id"] == made["id"]


async def test_requests_without_a_body_that_say_they_are_json(plane: Plane) -> None:
    made = await create(plane)
    headers = {"Content-Type": "application/json", "Content-Length": "0"}
    path = f"/v1/sandboxes/{made['id']}"
    steps = ("pause", "paused"), ("resume", "running"), ("stop", "stopped"), ("start", "running"), ("stop", "stopped")
    for call, status in (step for step in steps for _ in range(2)):
        answer = await plane.client.post(f"{path}/{call}", headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    fresh = await plane.client.post(f"{path}/token/refresh", headers=headers)
    assert plane.control.tokens.verify(fresh.json()["auth_token"]) == made["id"]
    for call in ("pause", "resume"):
        refused = await plane.client.post(f"{path}/{call}", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
        assert "/start" in refused.json()["remedy"]
    killed = await plane.client.request("DELETE", path, headers=headers)
    assert killed.status_code == 200


async def test_timeouts(plane: Plane) -> None:
    path = f"/v1/sandboxes/{(await create(plane))['id']}/timeout"
    answer = (await plane.client.put(path, json={"timeout_seconds": 120})).json()
    assert answer["timeout_seconds"] == 120
    assert answer["expires_at"].endswith("Z")
    answer = (await plane.client.put(path, json={"timeout_seconds": 0})).json()
    assert (answer["timeout_seconds"], answer["expires_at"]) == (0, None)


async def test_lists_always_have_a_cursor_when_there_is_more(plane: Plane) -> None:
    made = [(await create(plane))["id"] for _ in range(5)]
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    for _ in range(5):
        page = (await plane.client.get("/v1/sandboxes", params=query)).json()
        seen += [each["id"] for each in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        query = {"limit": 2, "cursor": page["next_cursor"]}
    assert seen == made[::-1]
    empty = (await plane.client.get("/v1/sandboxes", params={"status": "paused"})).json()
    assert (empty["data"], empty["has_more"], empty["object"]) == ([], False, "list")


async def test_templates_by_name_and_by_id(plane: Plane) -> None:
    page = (await plane.client.get("/v1/templates")).json()
    assert {each["name"] for each in page["data"]} == {"base", "code-interpreter"}
    for each in page["data"]:
        for reference in (each["id"], each["name"]):
            got = (await plane.client.get(f"/v1/templates/{reference}")).json()
            assert (got["id"], got["name"], got["status"], got["is_active"]) == (
                each["id"],
                each["name"],
                "active",
                True,
            )
        assert each["id"].isdecimal()
        assert isinstance(each["features"], list)
        assert isinstance(each["tags"], list)
    missing = await plane.client.get("/v1/templates/nonsense")
    assert (missing.status_code, missing.json()["code"]) == (404, "TEMPLATE_NOT_FOUND")
    none = (await plane.client.get("/v1/templates", params={"language": "cobol"})).json()
    assert none["data"] == []


async def test_strangers_see_nothing(plane: Plane) -> None:
    made = await create(plane)
    path = f"/v1/sandboxes/{made['id']}"
    stranger = plane.stranger
    for answer in (
        await stranger.get(path),
        await stranger.delete(path),
        await stranger.post(f"{path}/pause"),
        await stranger.post(f"{path}/resume"),
        await stranger.post(f"{path}/stop"),
        await stranger.post(f"{path}/token/refresh"),
        await stranger.put(f"{path}/timeout", json={"timeout_seconds": 1}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "SANDBOX_NOT_FOUND")
    for query in ("", "?status=running", "?status=deleted"):
        assert (await stranger.get(f"/v1/sandboxes{query}")).json()["data"] == []
    assert plane.host.ids == {made["id"]}
    assert (await stranger.get("/metrics")).status_code == 403


async def test_a_client_that_goes_away_leaves_nothing(plane: Plane) -> None:
    plane.host.driver.gate.clear()
    key = plane.client.headers["X-API-Key"]
    _, writer = await asyncio.open_unix_connection(str(plane.socket))
    body = b'{"template_name":"base"}'
    head = (
        f"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    await until(lambda: "create" in plane.host.calls)
    writer.close()
    await writer.wait_closed()
    plane.host.driver.gate.set()
    await until(lambda: "destroy" in plane.host.calls)
    assert plane.host.ids == set()
    assert (await plane.client.get("/v1/sandboxes")).json()["data"] == []


async def test_quotas_are_worded_so_that_clients_know_them(running: Running) -> None:
    plane = await running.start(max_sandboxes=1)
    await create(plane)
    refused = await plane.client.post("/v1/sandboxes", json=CODE)
    assert refused.status_code == 403
    assert "limit" in refused.json()["message"]
    assert refused.json()["error"]["details"]["limit"] == 1


async def test_sandboxes_survive_a_restart_of_the_server(running: Running) -> None:
    plane = await running.start()
    made = await create(plane)
    await plane.client.aclose()
    await running.stop_server()
    assert running.host.ids == {made["id"]}
    again = await running.start()
    assert (await again.client.get(f"/v1/sandboxes/{made['id']}")).json()["status"] == "running"
    assert again.control.directory.socket_of(made["id"]) is not None
    assert again.control.tokens.verify(made["auth_token"]) == made["id"]


async def test_the_pool_is_used_and_counted(running: Running) -> None:
    plane = await running.start(pool_size=2)
    await until(lambda: plane.control.engine.pool.sizes() == {"code-interpreter": 2})
    made = await create(plane, env_vars={"A": "1"})
    assert plane.host.driver.sandboxes[made["id"]].env_vars == {"A": "1"}
    text = (await plane.client.get("/metrics")).text
    assert 'cove_sandboxes{status="running"} 1.0' in text
    assert 'cove_sandbox_create_seconds_count{source="pool"} 1.0' in text
    assert 'cove_pool_members{template="code-interpreter"}' in text
    assert 'cove_http_requests_total{method="POST",route="/v1/sandboxes",status="201"} 1.0' in text
    assert 'cove_egress_bytes_total{direction="sent"} 7.0' in text
    assert 'cove_egress_refusals_total{cause="policy"} 1.0' in text
    assert 'cove_egress_refusals_total{cause="secret"} 0.0' in text


async def test_host_failures_have_their_status(plane: Plane) -> None:
    plane.host.driver.failures.extend(
        [error("DISK_FULL", "No room."), error("CAPACITY_EXHAUSTED", "Full."), error("SANDBOX_START_FAILED", "Oh.")]
    )
    answers = [await plane.client.post("/v1/sandboxes", json=CODE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [507, 503, 500]
    assert all(answer.json()["remedy"] in answer.json()["message"] for answer in answers)
    plane.host.down = True
    assert (await plane.client.post("/v1/sandboxes", json=CODE)).json()["code"] == "HOST_UNAVAILABLE"
    assert (await plane.nobody.get("/health")).json()["status"] == "healthy"
    figures = (await plane.client.get("/metrics")).text
    assert 'cove_sandbox_creates_total{outcome="DISK_FULL"} 1.0' in figures
    assert "cove_egress" not in figures, "what is not known is not shown as nothing"
