"""The routes of previews, and that the gateway hears at once what they change."""

import time
from datetime import datetime
from typing import Any

import pytest
from tests.server.conftest import Plane, Running

from cove.models.scopes import Scope
from cove.server.gateway.heads import parse_request
from cove.server.gateway.refusals import Refuse
from cove.server.gateway.routing import Route, ToPort, decide
from cove.server.gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio


async def create(plane: Plane, **fields: object) -> dict[str, Any]:
    answer = await plane.client.post("/v1/sandboxes", json={"template_name": "code-interpreter", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def routed(plane: Plane, url: str, *, needed: bool = False) -> Route:
    target = url.removeprefix("http://127.0.0.1:5555")
    head = parse_request(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1".encode())
    settings = GatewaySettings(previews_need_token=needed)
    return decide(head, settings, plane.control.tokens, plane.control.directory)


def code_of(route: Route) -> str:
    return route.code if isinstance(route, Refuse) else ""


async def test_links_of_a_sandbox(plane: Plane) -> None:
    made = await create(plane, preview_access="token")
    previews = f"/v1/sandboxes/{made['id']}/previews"
    assert made["preview_access"] == "token"
    bare = made["preview_url"].replace("{port}", "3000")
    answer = await plane.client.post(previews, json={"port": 3000, "expires_in_seconds": 60})
    assert answer.status_code == 201
    link = answer.json()
    assert link["url"] == f"{bare}?cove_preview_token={link['token']}"
    assert (link["id"], link["port"], link["access"]) == (made["id"], 3000, "token")
    left = datetime.fromisoformat(link["expires_at"]).timestamp() - time.time()
    assert 0 < left <= 60
    assert isinstance(routed(plane, link["url"]), ToPort)
    assert code_of(routed(plane, bare)) == "UNAUTHORIZED"
    assert code_of(routed(plane, link["url"].replace("/3000/", "/3001/"))) == "FORBIDDEN"
    revoked = await plane.client.delete(previews)
    assert (revoked.status_code, revoked.json()["access"]) == (200, "token")
    assert code_of(routed(plane, link["url"])) == "TOKEN_EXPIRED"
    fresh = (await plane.client.post(previews, json={"port": 3000})).json()["url"]
    assert isinstance(routed(plane, fresh), ToPort)
    assert (await plane.client.delete(f"/v1/sandboxes/{made['id']}")).status_code == 200
    assert code_of(routed(plane, fresh)) == "SANDBOX_NOT_FOUND"
    assert (await plane.client.post(previews, json={"port": 3000})).status_code == 404


async def test_access_changes_at_once_and_outlives_the_server(running: Running) -> None:
    plane = await running.start(reconcile_seconds=0.05)
    made = await create(plane)
    bare, previews = made["preview_url"].replace("{port}", "3000"), f"/v1/sandboxes/{made['id']}/previews"
    assert made["preview_access"] == "public"
    assert isinstance(routed(plane, bare), ToPort)
    for access, expected in (("token", "UNAUTHORIZED"), ("public", ""), ("token", "UNAUTHORIZED")):
        answer = await plane.client.put(previews, json={"access": access})
        assert (answer.status_code, answer.json()["access"]) == (200, access)
        assert code_of(routed(plane, bare)) == expected
    link = (await plane.client.post(previews, json={"port": 3000})).json()["url"]
    await running.stop_server()
    again = await running.start(preview_access="public")
    assert code_of(routed(again, bare)) == "UNAUTHORIZED"
    assert isinstance(routed(again, link), ToPort)
    assert (await again.client.get(f"/v1/sandboxes/{made['id']}")).json()["preview_access"] == "token"


async def test_the_servers_word_is_for_sandboxes_that_say_nothing(running: Running) -> None:
    plane = await running.start(preview_access="token")
    silent, public = await create(plane), await create(plane, preview_access="public")
    assert (silent["preview_access"], public["preview_access"]) == ("token", "public")
    for made, expected in ((silent, "UNAUTHORIZED"), (public, "")):
        assert code_of(routed(plane, made["preview_url"].replace("{port}", "80"), needed=True)) == expected


async def test_what_is_no_link_is_refused(plane: Plane) -> None:
    made = await create(plane)
    previews = f"/v1/sandboxes/{made['id']}/previews"
    for body in (
        {},
        {"port": 0},
        {"port": 65536},
        {"port": "3000"},
        {"port": 7777},
        {"port": 3000, "expires_in_seconds": 0},
        {"port": 3000, "expires_in_seconds": 7 * 24 * 3600 + 1},
        {"port": 3000, "expires_in_seconds": None},
    ):
        assert (await plane.client.post(previews, json=body)).status_code in (400, 422), body
    assert (await plane.client.put(previews, json={"access": "nobody"})).status_code in (400, 422)
    assert (await plane.client.post("/v1/sandboxes", json={"template_name": "base", "preview_access": "x"})).is_error
    for answer in (
        await plane.stranger.post(previews, json={"port": 3000}),
        await plane.stranger.put(previews, json={"access": "public"}),
        await plane.stranger.delete(previews),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "SANDBOX_NOT_FOUND")
    assert (await plane.nobody.post(previews, json={"port": 3000})).status_code == 401
    reader = await plane.control.keys.create("reader", scopes=frozenset({Scope.READ}))
    answer = await plane.nobody.post(previews, json={"port": 3000}, headers={"X-API-Key": reader.key})
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
