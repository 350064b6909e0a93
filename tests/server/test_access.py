"""What each route needs of a key: a scope, and a right to the namespace that the request names."""

import re
from typing import Any

import httpx2
import jwt
import pytest
from fastapi.routing import iter_route_contexts
from tests.server.conftest import Plane, Running

from cove.models.scopes import ALL_SCOPES, EVERY_NAMESPACE, NAMESPACE_HEADER, Scope
from cove.server.api.authentication import OPEN_PATHS

pytestmark = pytest.mark.anyio

BASE = {"template_name": "base"}
SECRET = "k" * 32

READ, EXEC, ADMIN = Scope.READ, Scope.EXEC, Scope.ADMIN
MATRIX: dict[tuple[str, str], Scope] = {
    ("GET", "/metrics"): READ,
    ("GET", "/v1/audit"): ADMIN,
    ("GET", "/v1/sandboxes"): READ,
    ("POST", "/v1/sandboxes"): EXEC,
    ("GET", "/v1/sandboxes/{sandbox_id}"): READ,
    ("DELETE", "/v1/sandboxes/{sandbox_id}"): EXEC,
    ("PUT", "/v1/sandboxes/{sandbox_id}/timeout"): EXEC,
    ("GET", "/v1/sandboxes/{sandbox_id}/usage"): READ,
    ("GET", "/v1/sandboxes/{sandbox_id}/network"): READ,
    ("PUT", "/v1/sandboxes/{sandbox_id}/network"): EXEC,
    ("POST", "/v1/sandboxes/{sandbox_id}/previews"): EXEC,
    ("PUT", "/v1/sandboxes/{sandbox_id}/previews"): EXEC,
    ("DELETE", "/v1/sandboxes/{sandbox_id}/previews"): EXEC,
    ("PUT", "/v1/sandboxes/{sandbox_id}/secrets/{variable}"): EXEC,
    ("DELETE", "/v1/sandboxes/{sandbox_id}/secrets/{variable}"): EXEC,
    ("GET", "/v1/secrets"): READ,
    ("PUT", "/v1/secrets/{secret}"): ADMIN,
    ("DELETE", "/v1/secrets/{secret}"): ADMIN,
    ("POST", "/v1/sandboxes/{sandbox_id}/token/refresh"): EXEC,
    ("POST", "/v1/sandboxes/{sandbox_id}/pause"): EXEC,
    ("POST", "/v1/sandboxes/{sandbox_id}/resume"): EXEC,
    ("POST", "/v1/sandboxes/{sandbox_id}/stop"): EXEC,
    ("POST", "/v1/sandboxes/{sandbox_id}/start"): EXEC,
    ("POST", "/v1/sandboxes/{sandbox_id}/volumes"): EXEC,
    ("POST", "/v1/client-leases"): EXEC,
    ("GET", "/v1/executions"): READ,
    ("GET", "/v1/executions/{execution_id}"): READ,
    ("POST", "/v1/executions/{execution_id}/redeliver"): EXEC,
    ("GET", "/v1/templates"): READ,
    ("GET", "/v1/templates/{reference}"): READ,
    ("DELETE", "/v1/templates/{reference}"): ADMIN,
    ("POST", "/v1/templates/build"): ADMIN,
    ("POST", "/v1/templates/files/upload-link"): ADMIN,
    ("GET", "/v1/templates/build/{build_id}/status"): READ,
    ("GET", "/v1/templates/build/{build_id}/logs"): READ,
    ("GET", "/auth/me"): READ,
    ("PUT", "/auth/profile"): ADMIN,
    ("GET", "/auth/organization"): READ,
    ("PUT", "/auth/organization"): ADMIN,
    ("POST", "/auth/organization/switch"): EXEC,
    ("GET", "/auth/user/organizations"): READ,
    ("GET", "/auth/members"): READ,
    ("POST", "/auth/members/invite"): ADMIN,
    ("DELETE", "/auth/members/{member_id}"): ADMIN,
    ("GET", "/auth/api-keys"): READ,
    ("POST", "/auth/api-keys"): ADMIN,
    ("GET", "/auth/api-keys/{key_id}"): READ,
    ("DELETE", "/auth/api-keys/{key_id}"): ADMIN,
    ("GET", "/auth/usage"): READ,
    ("GET", "/auth/plans"): READ,
    ("GET", "/auth/usage/history/sandboxes"): READ,
    ("GET", "/auth/usage/history/resources"): READ,
    ("GET", "/auth/usage/history/cost"): READ,
    ("GET", "/auth/billing/credit/balance"): READ,
    ("GET", "/auth/billing/history"): READ,
    ("GET", "/auth/billing/invoices"): READ,
    ("GET", "/auth/billing/auto-recharge"): READ,
}
OTHER_DOORS = {
    ("POST", "/sandboxes/{sandbox_id}/execute/async"): "the sandbox's token",
    ("PUT", "/v1/templates/uploads/{token}"): "a signed link",
}
ANY_SCOPE = {"/mcp", "/api/v1/rpc", "/api/v1/health"}
"""What they do goes through the other routes."""


async def with_key(plane: Plane, running: Running, **options: Any) -> httpx2.AsyncClient:
    made = await plane.control.keys.create("made", **options)
    return running.client(plane.socket, {"X-API-Key": made.key})


def entering(namespace: str) -> dict[str, str]:
    return {NAMESPACE_HEADER: namespace}


async def test_every_route_is_in_the_matrix(plane: Plane) -> None:
    document = plane.control.app.openapi()["paths"]
    routes = {(method.upper(), path) for path, methods in document.items() for method in methods}
    contexts = iter_route_contexts(plane.control.app.routes)
    routes |= {(method, context.path or "") for context in contexts for method in context.methods or ()}
    closed = {(method, path) for method, path in routes if path not in OPEN_PATHS | ANY_SCOPE and method != "HEAD"}
    assert closed == MATRIX.keys() | OTHER_DOORS.keys()


async def test_every_route_wants_its_scope_and_no_other(plane: Plane, running: Running) -> None:
    clients = {
        scope: (
            await with_key(plane, running, scopes=frozenset({scope})),
            await with_key(plane, running, scopes=ALL_SCOPES - {scope}),
        )
        for scope in Scope
    }
    for (method, path), scope in MATRIX.items():
        has, lacks = clients[scope]
        target = re.sub(r"\{[a-z_]+\}", "1763382095i648uu1o", path)
        refused = await lacks.request(method, target)
        body = refused.json()
        assert (refused.status_code, body["code"], body["details"]["scope"]) == (403, "FORBIDDEN", scope), path
        if path == "/v1/client-leases":
            continue  # it does not end
        allowed = await has.request(method, target)
        assert allowed.status_code not in (401, 403), (method, path, allowed.text)


async def test_an_unknown_path_and_method_needs_a_scope_too(plane: Plane, running: Running) -> None:
    reader = await with_key(plane, running, scopes=frozenset({READ}))
    assert (await reader.get("/v1/nothing")).status_code == 404
    assert (await reader.patch("/v1/sandboxes")).status_code == 403
    assert (await reader.head("/v1/sandboxes")).status_code == 405
    assert (await reader.post("/v1/sandboxes/", json=BASE)).status_code == 403


async def test_keys_make_keys_with_their_own_scopes_at_most(plane: Plane, running: Running) -> None:
    keeper = await with_key(plane, running, scopes=frozenset({READ, ADMIN}))
    made = (await keeper.post("/auth/api-keys", json={"name": "same"})).json()["api_key"]
    assert made["scopes"] == ["admin", "read"]
    fewer = (await keeper.post("/auth/api-keys", json={"name": "fewer", "scopes": ["read"]})).json()["api_key"]
    assert fewer["scopes"] == ["read"]
    more = await keeper.post("/auth/api-keys", json={"name": "more", "scopes": ["exec", "read"]})
    assert (more.status_code, more.json()["code"]) == (403, "FORBIDDEN")
    assert "exec" in more.json()["message"]
    for scopes in ([], ["root"], "read"):
        assert (await keeper.post("/auth/api-keys", json={"name": "odd", "scopes": scopes})).status_code == 400


async def test_sessions_have_the_scopes_of_their_key(plane: Plane, running: Running) -> None:
    made = await plane.control.keys.create("reader", scopes=frozenset({READ}))
    session = (await plane.nobody.post("/auth/workos-callback", json={"code": made.key})).json()
    client = running.client(plane.socket, {"Authorization": f"Bearer {session['access_token']}"})
    assert (await client.get("/auth/me")).status_code == 200
    assert (await client.post("/auth/api-keys", json={"name": "more"})).status_code == 403


async def test_a_key_of_one_namespace_enters_no_other(plane: Plane) -> None:
    own = await plane.client.post("/v1/sandboxes", json=BASE, headers=entering("default"))
    assert (own.status_code, own.json()["namespace"]) == (201, "default")
    for name in ("other", "Default", "new", EVERY_NAMESPACE, "", "a/b"):
        answer = await plane.client.get("/v1/sandboxes", headers=entering(name))
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN"), name
    assert await plane.control.store.read(lambda work: work.namespaces.get("new")) is None


async def test_a_key_of_all_namespaces_enters_any(plane: Plane, running: Running) -> None:
    ops = await with_key(plane, running, namespace=EVERY_NAMESPACE)
    made = (await ops.post("/v1/sandboxes", json={**BASE, "name": "x"}, headers=entering("Team_1"))).json()
    assert (made["namespace"], made["name"]) == ("Team_1", "x")
    assert made["organization_id"] > 2
    at_home = (await ops.post("/v1/sandboxes", json={**BASE, "name": "x"})).json()
    assert at_home["namespace"] == "default"
    there = await ops.get(f"/v1/sandboxes/{made['id']}", headers=entering("Team_1"))
    assert there.status_code == 200
    assert (await ops.get(f"/v1/sandboxes/{made['id']}")).status_code == 404
    assert (await plane.stranger.get(f"/v1/sandboxes/{made['id']}")).status_code == 404
    for bad in ("a/b", "-x", "x" * 64, "a b"):
        answer = await ops.post("/v1/sandboxes", json=BASE, headers=entering(bad))
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST"), bad


async def test_all_namespaces_can_be_looked_at_and_no_more(plane: Plane, running: Running) -> None:
    ops, everywhere = await with_key(plane, running, namespace=EVERY_NAMESPACE), entering(EVERY_NAMESPACE)
    ids = {(await client.post("/v1/sandboxes", json=BASE)).json()["id"] for client in (plane.client, plane.stranger)}
    listed = (await ops.get("/v1/sandboxes", headers=everywhere)).json()["data"]
    assert {(each["id"] in ids, each["namespace"]) for each in listed} == {(True, "default"), (True, "other")}
    one = ids.pop()
    assert (await ops.get(f"/v1/sandboxes/{one}", headers=everywhere)).status_code == 200
    assert (await ops.get("/v1/executions", headers=everywhere)).status_code == 200
    for method, path in (
        ("DELETE", f"/v1/sandboxes/{one}"),
        ("POST", "/v1/sandboxes"),
        ("POST", f"/v1/sandboxes/{one}/token/refresh"),
        ("GET", "/auth/organization"),
        ("GET", "/v1/templates"),
    ):
        answer = await ops.request(method, path, headers=everywhere, json=BASE if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST"), path


async def test_a_key_of_all_namespaces_shows_and_revokes_itself(plane: Plane, running: Running) -> None:
    made = await plane.control.keys.create("ops", namespace=EVERY_NAMESPACE)
    ops = running.client(plane.socket, {"X-API-Key": made.key})
    assert (await ops.get(f"/auth/api-keys/{made.stored.id}")).status_code == 200
    assert (await plane.client.get(f"/auth/api-keys/{made.stored.id}")).status_code == 404
    assert (await plane.client.delete(f"/auth/api-keys/{made.stored.id}")).status_code == 404
    assert (await ops.delete(f"/auth/api-keys/{made.stored.id}")).status_code == 200
    assert (await ops.get("/auth/me")).status_code == 401


async def test_everyone_enters_any_namespace_with_dev(running: Running) -> None:
    plane = await running.start(dev=True)
    made = (await plane.nobody.post("/v1/sandboxes", json=BASE, headers=entering("team"))).json()
    assert made["namespace"] == "team"
    assert (await plane.nobody.get("/v1/sandboxes")).json()["data"] == []


async def test_names_over_http(plane: Plane) -> None:
    made = (await plane.client.post("/v1/sandboxes", json={**BASE, "name": "one"})).json()
    again = await plane.client.post("/v1/sandboxes", json={**BASE, "name": "one"})
    assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")
    assert again.json()["details"]["sandbox_id"] == made["id"]
    assert (await plane.stranger.post("/v1/sandboxes", json={**BASE, "name": "one"})).status_code == 201
    found = (await plane.client.get("/v1/sandboxes", params={"name": "one"})).json()["data"]
    assert [each["id"] for each in found] == [made["id"]]
    assert (await plane.client.get("/v1/sandboxes", params={"name": "two"})).json()["data"] == []
    bad = await plane.client.post("/v1/sandboxes", json={**BASE, "name": "a b"})
    assert (bad.status_code, bad.json()["details"]["field"]) == (400, "name")


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer  {}"])
@pytest.mark.parametrize("header", ["Authorization", "Proxy-Authorization"])
async def test_forms_of_keys_for_clients_of_microsandbox(
    plane: Plane, running: Running, header: str, form: str
) -> None:
    made = await plane.control.keys.create("old", prefix="msb_", namespace="team")
    client = running.client(plane.socket, {header: form.format(made.key)})
    assert (await client.get("/auth/organization")).json()["slug"] == "team"
    ordinary = await plane.control.keys.create("new")
    other = running.client(plane.socket, {header: form.format(ordinary.key)})
    expected = 200 if header == "Authorization" and form != "{}" else 401
    assert (await other.get("/v1/sandboxes")).status_code == expected


async def test_proxy_authorization_is_looked_at_first(plane: Plane, running: Running) -> None:
    made = await plane.control.keys.create("old", prefix="msb_", namespace="team")
    headers = {"Proxy-Authorization": made.key, "Authorization": "Bearer msb_nonsense"}
    client = running.client(plane.socket, headers)
    assert (await client.get("/auth/organization")).json()["slug"] == "team"


async def test_keys_that_a_microsandbox_server_signed(running: Running) -> None:
    plane = await running.start(microsandbox_server_key=SECRET)
    claims = {"exp": 4_000_000_000, "iat": 1_800_000_000, "namespace": "team"}
    client = running.client(plane.socket, {"Authorization": "Bearer msb_" + jwt.encode(claims, SECRET, "HS256")})
    made = await client.post("/v1/sandboxes", json=BASE)
    assert (made.status_code, made.json()["namespace"]) == (201, "team")
    assert (await client.get("/v1/sandboxes", headers=entering("other"))).status_code == 403
    assert (await client.post("/auth/api-keys", json={"name": "more"})).status_code == 403
    assert (await client.get("/auth/me")).status_code == 200
    assert (await plane.client.get("/v1/sandboxes")).json()["data"] == []
    assert SECRET not in repr(plane.control.settings)


async def test_a_session_is_not_opened_with_what_is_no_api_key(running: Running) -> None:
    plane = await running.start(microsandbox_server_key=SECRET)
    principal = await plane.control.keys.verify((await plane.control.keys.create("k")).key)
    delegated = plane.control.engine.delegated_keys.issue(principal)
    token = "msb_" + jwt.encode({"exp": 4_000_000_000}, SECRET, "HS256")
    for code in (delegated, token):
        answer = await plane.nobody.post("/auth/workos-callback", json={"code": code})
        assert (answer.status_code, answer.json()["code"]) == (401, "AUTHENTICATION_REQUIRED")
