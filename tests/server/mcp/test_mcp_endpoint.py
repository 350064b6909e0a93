"""`/mcp` on a control plane: revisions, kinds of answers, sessions, bounds."""

import asyncio
import json
from typing import Any

import pytest
from tests.server.conftest import Plane
from tests.server.mcp.conftest import plane_with_door
from tests.server.mcp.mcp_wire import (
    BOTH,
    OLDER,
    STATELESS,
    initialize,
    message_of,
    names_of,
    open_session,
    request,
    stateless,
    tool_call,
)

from cove.models.scopes import Scope
from cove.server.mcp.bounds import MAX_BODY_BYTES
from cove.server.mcp.sessions import MOST_OF_CALLER

pytestmark = pytest.mark.anyio


async def test_the_stateless_revision_needs_no_handshake(mcp_plane: Plane) -> None:
    found = await mcp_plane.client.post("/mcp", **stateless("server/discover"))
    assert found.status_code == 200
    result = message_of(found)["result"]
    assert result["instructions"].startswith("Cove runs code")
    assert STATELESS in result["supportedVersions"]
    assert "mcp-session-id" not in found.headers
    assert "create_sandbox" in names_of(await mcp_plane.client.post("/mcp", **stateless("tools/list")))


@pytest.mark.parametrize("version", OLDER)
async def test_older_revisions_have_sessions(mcp_plane: Plane, version: str) -> None:
    client = mcp_plane.client
    headers = await open_session(client, version)
    assert "create_sandbox" in names_of(await client.post("/mcp", json=request("tools/list"), headers=headers))
    assert (await client.delete("/mcp", headers=headers)).status_code == 200
    assert (await client.post("/mcp", json=request("tools/list"), headers=headers)).status_code == 404


async def test_a_version_that_is_not_known_is_answered_with_those_that_are(mcp_plane: Plane) -> None:
    answer = await mcp_plane.client.post("/mcp", **stateless("tools/list", version="2099-01-01"))
    failure = answer.json()["error"]
    assert (answer.status_code, failure["code"]) == (400, -32022)
    assert STATELESS in failure["data"]["supported"]


async def test_a_method_that_is_not_known_is_404(mcp_plane: Plane) -> None:
    answer = await mcp_plane.client.post("/mcp", **stateless("tools/juggle"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)


@pytest.mark.parametrize(
    "wrong", [{"Mcp-Method": "tools/list"}, {"Mcp-Name": "create_sandbox"}, {"MCP-Protocol-Version": "2025-11-25"}]
)
async def test_headers_that_say_something_else_than_the_body_are_refused(
    mcp_plane: Plane, wrong: dict[str, str]
) -> None:
    answer = await mcp_plane.client.post("/mcp", **tool_call("health", more=wrong))
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("version", [None, STATELESS, OLDER[0]])
async def test_there_is_no_stream_outside_a_session(mcp_plane: Plane, version: str | None) -> None:
    headers = {"Accept": "text/event-stream"} | ({} if version is None else {"MCP-Protocol-Version": version})
    for method in ("GET", "DELETE", "PUT"):
        answer = await mcp_plane.client.request(method, "/mcp", headers=headers)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
@pytest.mark.parametrize("accept", ["application/json", "*/*", BOTH, "application/json;q=0.9"])
async def test_clients_need_not_take_both_kinds_of_answers(mcp_plane: Plane, accept: str, path: str) -> None:
    client = mcp_plane.client
    assert names_of(await client.post(path, **stateless("tools/list", accept=accept)))
    headers = await open_session(client, accept=accept, path=path)
    listed = await client.post(path, json=request("tools/list"), headers=headers)
    assert names_of(listed)
    if "event-stream" not in accept and "*" not in accept:
        assert listed.headers["content-type"] == "application/json"


async def test_a_client_that_takes_neither_is_refused(mcp_plane: Plane) -> None:
    answer = await mcp_plane.client.post("/mcp", **stateless("tools/list", accept="text/html"))
    assert answer.status_code == 406


async def test_the_set_of_tools_is_chosen_in_the_url(mcp_plane: Plane) -> None:
    client = mcp_plane.client
    everything = names_of(await client.post("/mcp", **stateless("tools/list")))
    core = names_of(await client.post("/mcp?toolset=core", **stateless("tools/list")))
    assert set(core) < set(everything)
    refused = await client.post("/mcp?toolset=none", **stateless("tools/list"))
    assert refused.status_code == 400
    assert "core, hopx, microsandbox" in refused.json()["error"]["message"]


async def test_the_set_of_tools_is_a_setting() -> None:
    async with plane_with_door(mcp_toolset="microsandbox") as plane:
        names = names_of(await plane.client.post("/mcp", **stateless("tools/list")))
        assert names
        assert all(name.startswith("sandbox_") for name in names)


async def test_tools_act_with_the_callers_key(mcp_plane: Plane) -> None:
    made = message_of(await mcp_plane.client.post("/mcp", **tool_call("create_sandbox")))["result"]
    assert not made.get("isError"), made
    sandbox_id = made["structuredContent"]["id"]
    assert (await mcp_plane.client.get(f"/v1/sandboxes/{sandbox_id}")).status_code == 200
    events = await mcp_plane.control.store.read(lambda work: work.events.recent(namespace="default", limit=5))
    assert {event.actor for event in events} != {"system"}

    foreign = message_of(await mcp_plane.stranger.post("/mcp", **tool_call("get_sandbox", {"id": sandbox_id})))
    missing = message_of(await mcp_plane.stranger.post("/mcp", **tool_call("get_sandbox", {"id": "1" * 10 + "a" * 8})))
    assert foreign["result"]["isError"]
    text = foreign["result"]["content"][0]["text"].replace(sandbox_id, "1" * 10 + "a" * 8)
    assert text == missing["result"]["content"][0]["text"]
    assert not message_of(await mcp_plane.client.post("/mcp", **tool_call("delete_sandbox", {"id": sandbox_id})))[
        "result"
    ].get("isError")


async def test_a_session_is_of_the_key_that_opened_it(mcp_plane: Plane) -> None:
    headers = await open_session(mcp_plane.client)
    for client in (mcp_plane.stranger, mcp_plane.client):
        answer = await client.post("/mcp", json=request("tools/list"), headers=headers)
        assert answer.status_code == (404 if client is mcp_plane.stranger else 200)
    stolen = await mcp_plane.stranger.delete("/mcp", headers=headers)
    never = await mcp_plane.stranger.delete("/mcp", headers={**headers, "Mcp-Session-Id": "0" * 32})
    assert (stolen.status_code, _said(stolen.json())) == (404, _said(never.json()))


async def test_a_key_has_so_many_sessions_and_no_more(mcp_plane: Plane) -> None:
    made = await mcp_plane.control.keys.create("greedy")
    headers = {"Accept": BOTH, "Authorization": f"Bearer {made.key}"}
    for _ in range(MOST_OF_CALLER):
        assert (await mcp_plane.nobody.post("/mcp", json=initialize(), headers=headers)).status_code == 200
    refused = await mcp_plane.nobody.post("/mcp", json=initialize(), headers=headers)
    assert (refused.status_code, refused.json()["error"]["data"]["code"]) == (403, "RESOURCE_LIMIT_EXCEEDED")
    assert (await mcp_plane.client.post("/mcp", json=initialize(), headers={"Accept": BOTH})).status_code == 200


async def test_without_a_key_there_is_nothing(mcp_plane: Plane) -> None:
    for sent, scheme in (
        ({}, 'Bearer scope="read exec"'),
        ({"Authorization": "Bearer hopx_live_x.y"}, 'Bearer scope="read exec", error="invalid_token"'),
    ):
        answer = await mcp_plane.nobody.post("/mcp", **stateless("tools/list", more=sent))
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, scheme)
        body = answer.json()
        assert (body["jsonrpc"], body["id"], body["error"]["data"]["code"]) == ("2.0", None, "AUTHENTICATION_REQUIRED")
        assert body["error"]["data"]["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("style", ["Bearer {}", "{}"])
async def test_keys_of_microsandbox_clients_open_it(mcp_plane: Plane, style: str) -> None:
    made = await mcp_plane.control.keys.create("msb", prefix="msb_")
    headers = {"Authorization": style.format(made.key)}
    assert names_of(await mcp_plane.nobody.post("/mcp", **stateless("tools/list", more=headers)))


async def test_pages_of_other_origins_are_refused(mcp_plane: Plane) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        answer = await mcp_plane.client.post("/mcp", **stateless("tools/list", more={"Origin": origin}))
        assert answer.status_code == 403
    own = {"Origin": "http://127.0.0.1:5555"}
    assert (await mcp_plane.client.post("/mcp", **stateless("tools/list", more=own))).status_code == 200


async def test_tools_beyond_a_keys_scopes_are_neither_listed_nor_callable(mcp_plane: Plane) -> None:
    made = await mcp_plane.control.keys.create("reader", scopes=frozenset({Scope.READ}))
    headers = {"X-API-Key": made.key}
    names = names_of(await mcp_plane.nobody.post("/mcp", **stateless("tools/list", more=headers)))
    assert "list_sandboxes" in names
    assert "create_sandbox" not in names
    refused = message_of(await mcp_plane.nobody.post("/mcp", **tool_call("create_sandbox", more=headers)))["result"]
    assert refused["isError"]
    assert "FORBIDDEN" in refused["content"][0]["text"]


async def test_a_revoked_key_is_refused_although_its_session_is_open(mcp_plane: Plane) -> None:
    made = await mcp_plane.control.keys.create("short")
    client, headers = mcp_plane.nobody, {"X-API-Key": made.key}
    opened = await client.post("/mcp", json=initialize(), headers={"Accept": BOTH, **headers})
    session = {**headers, "Accept": BOTH, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
    assert (await client.post("/mcp", json=request("tools/list"), headers=session)).status_code == 200
    await mcp_plane.control.keys.revoke(made.stored.id)
    assert (await client.post("/mcp", json=request("tools/list"), headers=session)).status_code == 401
    assert (await client.post("/mcp", **stateless("tools/list", more=headers))).status_code == 401


async def test_a_body_may_be_large_and_no_larger(mcp_plane: Plane) -> None:
    big = "x" * (10 * 1024 * 1024)
    answer = await mcp_plane.client.post("/mcp", **tool_call("execute_code_isolated", {"code": big}))
    assert answer.status_code == 200
    assert message_of(answer)["result"]["isError"]
    assert len(answer.content) < 10_000
    too_big = json.dumps(request("tools/list", {"x": "x" * MAX_BODY_BYTES})).encode()

    async def dripping() -> object:
        for start in range(0, len(too_big), 2**20):
            yield too_big[start : start + 2**20]

    for content in (too_big, dripping()):
        headers = {"Accept": BOTH, "Content-Type": "application/json"}
        refused = await mcp_plane.client.post("/mcp", content=content, headers=headers)  # pyright: ignore[reportArgumentType]
        assert (refused.status_code, refused.json()["error"]["data"]["code"]) == (413, "REQUEST_TOO_LARGE")
    small = await mcp_plane.client.post("/v1/sandboxes", content=b"x" * (2 * 1024 * 1024))
    assert small.status_code == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b"[" * 100_000, 400), (b'{"jsonrpc":"2.0"}', 400)],
)
@pytest.mark.parametrize("version", [STATELESS, OLDER[0]])
async def test_what_is_no_request_is_refused(mcp_plane: Plane, body: bytes, status: int, version: str) -> None:
    headers = {"Accept": BOTH, "Content-Type": "application/json", "MCP-Protocol-Version": version}
    answer = await mcp_plane.client.post("/mcp", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"]


async def test_a_call_counts_once_and_its_creates_count_as_creates() -> None:
    async with plane_with_door(request_rate=10, create_rate=2) as plane:
        left: list[str] = []
        answers: list[dict[str, Any]] = []
        for _ in range(3):
            answer = await plane.client.post("/mcp", **tool_call("create_sandbox"))
            left.append(answer.headers["x-ratelimit-remaining"])
            answers.append(message_of(answer)["result"])
        assert left == ["9", "8", "7"]
        assert [bool(result.get("isError")) for result in answers] == [False, False, True]
        assert "RATE_LIMIT_EXCEEDED" in answers[2]["content"][0]["text"]
        # Meanwhile the limit has refilled a little.
        lists = [await plane.client.post("/mcp", **tool_call("list_sandboxes")) for _ in range(12)]
        assert [answer.status_code for answer in lists[:7]] == [200] * 7
        answer = lists[-1]
        assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (429, "RATE_LIMIT_EXCEEDED")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await plane.client.get("/v1/sandboxes")).status_code == 429


async def test_streams_without_end_are_ended_with_the_server() -> None:
    async with plane_with_door() as plane:
        headers = await open_session(plane.client)
        async with plane.client.stream("GET", "/mcp", headers=headers) as stream, asyncio.timeout(10):
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["x-accel-buffering"] == "no"
            plane.control.mcp.close()
            async for _ in stream.aiter_bytes():
                pass


async def test_requests_that_come_at_once_wait_for_the_library() -> None:
    async with plane_with_door() as plane, asyncio.timeout(40):
        asked = [plane.client.post("/mcp", **stateless("tools/list")) for _ in range(8)]
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


def _said(body: dict[str, dict[str, str]]) -> str:
    return body["error"]["message"]
