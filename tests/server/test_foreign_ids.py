"""Every route of the control plane that takes an id, called with another tenant's: there is no such thing."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tests.server.conftest import Plane, Running

pytestmark = pytest.mark.anyio

PARAMETER = re.compile(r"\{([a-z_]+)\}")
BUILD = {
    "name": "alices",
    "from_image": "python:3.11",
    "steps": [{"type": "RUN", "args": ["true"]}],
    "cpu": 1,
    "memory": 512,
    "disk_gb": 1,
}
BODIES: dict[str, Any] = {
    "/v1/sandboxes/{sandbox_id}/timeout": {"timeout_seconds": 5},
    "/v1/sandboxes/{sandbox_id}/network": {"allow": ["a.example"]},
    "/v1/sandboxes/{sandbox_id}/previews": {"port": 3000, "access": "token"},
    "/v1/sandboxes/{sandbox_id}/secrets/{variable}": {"value": "sk-of-a-stranger"},
    "/v1/secrets/{secret}": {"value": "sk-live-0001", "hosts": ["a.example"]},
    "/v1/sandboxes/{sandbox_id}/volumes": {"host_path": "/srv/one", "path": "/workspace/one"},
    "/sandboxes/{sandbox_id}/execute/async": {"code": "1", "callback_url": "http://127.0.0.1:9/"},
}


@pytest.fixture
async def plane(running: Running) -> Plane:
    return await running.start(webhook_allow=["127.0.0.1"])


async def owned(plane: Plane) -> dict[str, str]:
    """Something of Alice's for each parameter of a path."""
    made = (await plane.client.post("/v1/sandboxes", json={"template_name": "base"})).json()
    own = {"Authorization": f"Bearer {made['auth_token']}"}
    path = f"/sandboxes/{made['id']}/execute/async"
    execution = await plane.nobody.post(path, json=BODIES["/sandboxes/{sandbox_id}/execute/async"], headers=own)
    build = await plane.client.post("/v1/templates/build", json=BUILD)
    assert (execution.status_code, build.status_code) == (200, 201), build.text
    kept = await plane.client.put("/v1/secrets/kept", json=BODIES["/v1/secrets/{secret}"])
    assert kept.status_code == 200, kept.text
    key = (await plane.client.get("/auth/api-keys")).json()["api_keys"][0]["id"]
    return {
        "sandbox_id": made["id"],
        "secret": "kept",
        "variable": "TOKEN",
        "execution_id": execution.json()["execution_id"],
        "build_id": build.json()["build_id"],
        "reference": build.json()["template_id"],
        "key_id": key,
        "member_id": key,
    }


def routes(plane: Plane) -> Iterator[tuple[str, str]]:
    """Method and path of each, as the document of all routes has them; uploads have signed links instead of ids."""
    for path, methods in plane.control.app.openapi()["paths"].items():
        yield from ((method.upper(), path) for method in methods if "{token}" not in path)


async def call(client: httpx2.AsyncClient, method: str, path: str, ids: dict[str, str], **options: Any) -> Any:
    target = PARAMETER.sub(lambda found: ids[found[1]], path)
    return await client.request(method, target, json=BODIES.get(path), **options)


async def state(plane: Plane, ids: dict[str, str]) -> list[Any]:
    """What Alice sees of what is hers."""
    paths = [
        *(f"/v1/sandboxes/{ids['sandbox_id']}", f"/v1/executions/{ids['execution_id']}"),
        *(f"/v1/templates/{ids['reference']}", f"/auth/api-keys/{ids['key_id']}"),
    ]
    answers = [(await plane.client.get(path)) for path in paths]
    assert [answer.status_code for answer in answers] == [200] * len(paths)
    return [answer.json() for answer in answers]


async def test_ids_of_another_tenant(plane: Plane) -> None:
    ids = await owned(plane)
    before = await state(plane, ids)
    theirs = (await plane.stranger.post("/v1/sandboxes", json={"template_name": "base"})).json()
    token = {"Authorization": f"Bearer {theirs['auth_token']}"}
    called = 0
    for method, path in routes(plane):
        if "{" not in path or (method, path) == ("PUT", "/v1/secrets/{secret}"):  # makes one of their own
            continue
        called += 1
        if path.startswith("/sandboxes/"):
            answer = await call(plane.nobody, method, path, ids, headers=token)
            assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN"), (method, path)
        else:
            answer = await call(plane.stranger, method, path, ids)
            assert (answer.status_code, answer.json()["code"][-10:]) == (404, "_NOT_FOUND"), (method, path)
            assert (await call(plane.nobody, method, path, ids)).status_code == 401, (method, path)
        assert "alice" not in answer.text
    assert called >= 17
    after = await state(plane, ids)
    assert [one["status"] for one in (before[0], before[3]["api_key"])] == (
        [one["status"] for one in (after[0], after[3]["api_key"])]
    )
    assert before[0]["expires_at"] == after[0]["expires_at"]


async def test_no_list_holds_what_is_another_tenants(plane: Plane) -> None:
    ids = await owned(plane)
    named = {ids["sandbox_id"], ids["execution_id"], ids["key_id"], "alice"}
    for method, path in routes(plane):
        if method == "GET" and "{" not in path:
            answer = await plane.stranger.get(path)
            assert answer.status_code in (200, 403), path
            assert not [each for each in named if each in answer.text], path
