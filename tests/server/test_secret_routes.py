"""Secrets over HTTP: kept, rotated, deleted; and that a value is in no answer, whatever is wrong with the request."""

from io import StringIO
from typing import Any

import httpx2
import pytest
from tests.server.conftest import Plane, Running

from cove.models.scopes import Scope
from cove.server.logs import configure_logging
from cove.server.settings import Settings

pytestmark = pytest.mark.anyio

VALUE = "sk-live-1234567890"
KEPT: dict[str, Any] = {"value": VALUE, "hosts": ["api.example.com"]}
CREATE: dict[str, Any] = {
    "template_name": "base",
    "network": {"allow": ["api.example.com"]},
    "secrets": {
        "GIVEN": {"value": VALUE, "hosts": ["api.example.com"]},
        "KEPT": {"from_vault": "openai"},
    },
}


def held(plane: Plane, sandbox_id: str) -> dict[str, str]:
    return {name: secret.value for name, secret in plane.host.secrets[sandbox_id].items()}


async def answered(client: httpx2.AsyncClient, method: str, path: str, status: int = 200, **options: Any) -> Any:
    answer = await client.request(method, path, **options)
    assert answer.status_code == status, answer.text
    assert VALUE not in answer.text
    return answer.json()


async def test_a_secrets_life(plane: Plane) -> None:
    client = plane.client
    kept = await answered(client, "PUT", "/v1/secrets/openai", json=KEPT)
    assert (kept["name"], kept["hosts"], kept["places"]) == ("openai", ["api.example.com"], ["headers"])
    made = await answered(client, "POST", "/v1/sandboxes", 201, json=CREATE)
    path = f"/v1/sandboxes/{made['id']}"
    uses = {"hosts": ["api.example.com"], "places": ["headers"], "from_vault": None, "withdrawn": False}
    assert made["secrets"] == {"GIVEN": uses, "KEPT": {**uses, "from_vault": "openai"}}
    assert (await answered(client, "GET", path))["secrets"] == made["secrets"]
    assert "cove-secret-" not in str(await answered(client, "GET", "/v1/sandboxes"))
    (listed,) = (await answered(client, "GET", "/v1/secrets"))["data"]
    assert (listed["name"], listed["sandboxes"]) == ("openai", 1)
    rotated = await answered(client, "PUT", "/v1/secrets/openai", json={"value": "sk-live-rotated"})
    assert (rotated["hosts"], rotated["sandboxes"], rotated["behind"]) == (["api.example.com"], 1, 0)
    changed = await answered(client, "PUT", f"{path}/secrets/GIVEN", json={"value": "sk-live-changed"})
    assert changed == {"id": made["id"], "name": "GIVEN", **uses, "request_id": changed["request_id"]}
    assert held(plane, made["id"]) == {"GIVEN": "sk-live-changed", "KEPT": "sk-live-rotated"}
    assert (await answered(client, "DELETE", f"{path}/secrets/GIVEN"))["withdrawn"]
    refused = await answered(client, "DELETE", "/v1/secrets/openai", 409)
    assert "force=true" in refused["remedy"]
    assert (await answered(client, "DELETE", "/v1/secrets/openai", params={"force": "true"}))["deleted"]
    assert held(plane, made["id"]) == {}
    shown = (await answered(client, "GET", path))["secrets"]
    assert [secret["withdrawn"] for secret in shown.values()] == [True, True]
    entries = (await answered(client, "GET", "/v1/audit", params={"limit": 100}))["data"]
    actions = [entry["action"] for entry in entries]
    for action in ("secret.set", "secret.deleted", "sandbox.secret_changed", "sandbox.secret_withdrawn"):
        assert action in actions


@pytest.mark.parametrize(
    "body",
    [
        {"value": VALUE + "\n", "hosts": ["a.example"]},
        {"value": VALUE + "ü", "hosts": ["a.example"]},
        {"value": VALUE},
        {"value": VALUE, "hosts": []},
        {"value": VALUE, "hosts": ["192.0.2.1"]},
        {"value": VALUE, "hosts": ["*"]},
        {"value": VALUE, "hosts": ["a.example"], "places": []},
        {"value": VALUE, "hosts": ["a.example"], "places": ["cookies"]},
        {"value": VALUE, "hosts": ["a.example"], "host": "b.example"},
        {"value": VALUE, "from_vault": "openai", "hosts": ["a.example"]},
        {"value": [VALUE], "hosts": ["a.example"]},
        {"value": {"x": VALUE}, "hosts": ["a.example"]},
        {"value": VALUE * 300, "hosts": ["a.example"]},
        {"value": "sk-1", "hosts": ["a.example"]},
        [VALUE],
        VALUE,
    ],
)
async def test_what_is_wrong_is_said_without_the_value(shared_plane: Plane, body: Any) -> None:
    log = StringIO()
    configure_logging(Settings(log_format="json", log_level="debug"), stream=log)
    client = shared_plane.client
    create = {"template_name": "base", "network": {"allow": ["*"]}, "secrets": {"TOKEN": body}}
    refused = await answered(client, "POST", "/v1/sandboxes", 400, json=create)
    assert (refused["code"], refused["details"]["field"][:13]) == ("INVALID_REQUEST", "secrets.TOKEN")
    await answered(client, "PUT", "/v1/secrets/fresh", 400, json=body)
    path = "/v1/sandboxes/1763382095i648uu1o/secrets/TOKEN"
    for other in ({"value": [body]}, {"value": VALUE, "more": body}):
        await answered(client, "PUT", path, 400, json=other)
    assert VALUE not in log.getvalue()
    assert VALUE not in str(await answered(client, "GET", "/v1/audit"))


@pytest.mark.parametrize("name", ["", "A B", "1A", "A-B", "PATH=", "A" * 129])
async def test_names_of_variables(shared_plane: Plane, name: str) -> None:
    create = {**CREATE, "secrets": {name: CREATE["secrets"]["GIVEN"]}}
    assert (await answered(shared_plane.client, "POST", "/v1/sandboxes", 400, json=create))["code"] == "INVALID_REQUEST"


async def test_a_create_with_a_secret_is_repeatable_and_another_value_is_another_request(plane: Plane) -> None:
    await answered(plane.client, "PUT", "/v1/secrets/openai", json=KEPT)
    headers = {"Idempotency-Key": "the-same"}
    first = await answered(plane.client, "POST", "/v1/sandboxes", 201, json=CREATE, headers=headers)
    again = await answered(plane.client, "POST", "/v1/sandboxes", 201, json=CREATE, headers=headers)
    assert again["id"] == first["id"]
    other = {**CREATE, "secrets": {**CREATE["secrets"], "GIVEN": {**KEPT, "value": "sk-live-another"}}}
    await answered(plane.client, "POST", "/v1/sandboxes", 409, json=other, headers=headers)


async def test_who_may_only_make_sandboxes_sets_no_secrets_and_sends_them_nowhere_else(
    plane: Plane, running: Running
) -> None:
    await answered(plane.client, "PUT", "/v1/secrets/openai", json=KEPT)
    made = await plane.control.keys.create("worker", scopes=frozenset({Scope.EXEC, Scope.READ}))
    worker = running.client(plane.socket, {"X-API-Key": made.key})
    await answered(worker, "PUT", "/v1/secrets/openai", 403, json={"value": VALUE, "hosts": ["evil.example"]})
    theirs = {"from_vault": "openai", "hosts": ["evil.example"]}
    create = {"template_name": "base", "internet_access": True, "secrets": {"TOKEN": theirs}}
    refused = await answered(worker, "POST", "/v1/sandboxes", 403, json=create)
    assert "api.example.com" in refused["message"]
    await answered(worker, "POST", "/v1/sandboxes", 201, json=CREATE)


async def test_the_vault_survives_the_server_and_is_unreadable_without_its_key(plane: Plane, running: Running) -> None:
    await answered(plane.client, "PUT", "/v1/secrets/openai", json=KEPT)
    await running.stop_server()
    for path in running.directory.rglob("*"):
        assert not path.is_file() or VALUE.encode() not in path.read_bytes(), path
    again = await running.start()
    made = await answered(again.client, "POST", "/v1/sandboxes", 201, json=CREATE)
    assert held(again, made["id"]) == {"GIVEN": VALUE, "KEPT": VALUE}
    await running.stop_server()
    (running.directory / "keys" / "vault.key").write_bytes(bytes(32))
    third = await running.start()
    await answered(third.client, "POST", "/v1/sandboxes", 500, json=CREATE)
