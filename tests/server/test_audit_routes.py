"""`GET /v1/audit`: who may see what of the log, and how it is asked. The log as a file."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.server.conftest import Plane, Running

from cove.models.quotas import Quota
from cove.models.scopes import ALL_SCOPES, NAMESPACE_HEADER, Scope

pytestmark = pytest.mark.anyio

BASE = {"template_name": "base"}


async def log(plane: Plane, client: httpx2.AsyncClient, /, *, headers: Any = None, **query: Any) -> list[Any]:
    await plane.control.engine.audit.flush(everything=True)
    answer = await client.get("/v1/audit", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def with_key(plane: Plane, running: Running, **options: Any) -> httpx2.AsyncClient:
    made = await plane.control.keys.create("made", **options)
    return running.client(plane.socket, {"X-API-Key": made.key})


async def test_each_tenant_sees_what_it_did_and_nothing_of_others(plane: Plane, running: Running) -> None:
    mine = (await plane.client.post("/v1/sandboxes", json={**BASE, "name": "one"})).json()["id"]
    theirs = (await plane.stranger.post("/v1/sandboxes", json=BASE)).json()["id"]
    assert (await plane.stranger.delete(f"/v1/sandboxes/{mine}")).status_code == 404
    await plane.client.put(f"/v1/sandboxes/{mine}/timeout", json={"timeout_seconds": 90})
    await plane.client.post(f"/v1/sandboxes/{mine}/token/refresh", headers={"X-Request-ID": "req-of-mine"})
    await plane.client.delete(f"/v1/sandboxes/{mine}")

    alice = (await plane.client.get("/auth/me")).json()["user_id"]
    life = {each["action"]: each for each in await log(plane, plane.client, sandbox_id=mine)}
    assert {each["actor"] for each in life.values()} == {alice}
    assert life.keys() == {
        "sandbox.created", "sandbox.timeout_changed", "sandbox.token_issued", "sandbox.ended",
    }  # fmt: skip
    assert life["sandbox.created"]["details"]["name"] == "one"
    assert life["sandbox.timeout_changed"]["details"] == {"timeout_seconds": 90}
    assert life["sandbox.token_issued"]["request_id"] == "req-of-mine"
    assert life["sandbox.ended"]["details"]["reason"] == "killed"

    bobs = await log(plane, plane.stranger)
    assert {each["namespace"] for each in bobs} == {"other"}
    assert [each["subject"] for each in bobs if each["action"] == "sandbox.created"] == [theirs]
    (refused,) = [each for each in bobs if each["outcome"] != "ok"]
    assert (refused["outcome"], refused["subject"]) == ("SANDBOX_NOT_FOUND", mine)
    assert refused["details"]["route"] == "DELETE /v1/sandboxes/{sandbox_id}"
    assert theirs not in json.dumps(await log(plane, plane.client))

    operator = await with_key(plane, running, namespace="*")
    assert {each["namespace"] for each in await log(plane, operator)} == {"default", "other"}
    other = {NAMESPACE_HEADER: "other"}
    assert {each["namespace"] for each in await log(plane, operator, headers=other)} == {"other"}
    assert (await plane.stranger.get("/v1/audit", headers={NAMESPACE_HEADER: "*"})).status_code == 403


async def test_only_admins_see_it_and_keys_with_limits_only_themselves(plane: Plane, running: Running) -> None:
    lesser = await with_key(plane, running, scopes=ALL_SCOPES - {Scope.ADMIN})
    refused = await lesser.get("/v1/audit")
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    confined = await with_key(plane, running, quota=Quota(max_sandboxes=1))
    await plane.client.post("/v1/sandboxes", json=BASE)
    made = (await confined.post("/v1/sandboxes", json=BASE)).json()["id"]
    assert [each["subject"] for each in await log(plane, confined)] == [made]
    alice = (await plane.client.get("/auth/me")).json()["user_id"]
    assert await log(plane, confined, actor=alice) == []
    whole = await plane.control.keys.verify((await plane.control.keys.create("whole")).key)
    delegated = plane.control.engine.delegated_keys.issue(replace(whole, client_lease="lease_1"))
    leased = running.client(plane.socket, {"X-API-Key": delegated})
    assert (await leased.get("/v1/audit")).status_code == 403
    refusals = await log(plane, plane.client, outcome="FORBIDDEN")
    assert [each["details"]["route"] for each in refusals] == ["GET /v1/audit"] * 2


async def test_failed_authentication_is_noted_without_what_was_sent(plane: Plane) -> None:
    key = "hopx_live_000000000000." + "x" * 43
    for _ in range(100):
        await plane.nobody.get("/v1/sandboxes", headers={"X-API-Key": key, "X-Forwarded-For": "192.0.2.9"})
    found = await log(plane, plane.client, action="request.refused")
    assert {each["actor"] for each in found} == {"anonymous"}
    assert {each["outcome"] for each in found} == {"AUTHENTICATION_REQUIRED", "RATE_LIMIT_EXCEEDED"}
    assert sum(each["details"].get("count", 1) for each in found) == 100
    assert len(found) <= 8
    assert {each["address"] for each in found} == {"192.0.2.9"}
    assert "xxxx" not in json.dumps(found)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "x"},
        {"cursor": "nonsense"},
        {"cursor": "YmVmb3JlIDE5IA"},
        {"since": "yesterday"},
        {"since": "2026-01-17T12:00:00"},
        {"until": "1e400"},
        {"since": "2026-01-18T12:00:00Z", "until": "2026-01-17T12:00:00Z"},
        {"action": "x%"},
        {"actor": ""},
        {"outcome": "x" * 201},
    ],
)
async def test_bad_questions_are_refused(shared_plane: Plane, query: dict[str, Any]) -> None:
    answer = await shared_plane.client.get("/v1/audit", params=query)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST"), answer.text
    assert next(iter(query)) in answer.json()["message"]


async def test_pages_go_on_while_entries_come(plane: Plane) -> None:
    for number in range(7):
        await plane.control.keys.create(f"k{number}")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await plane.client.get("/v1/audit", params={"action": "key.", "limit": 3, **cursor})).json()
        seen += [each["details"]["name"] for each in page["data"]]
        await plane.control.keys.create("later")
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [*(f"k{number}" for number in range(6, -1, -1)), "alice"]


async def test_the_file_has_every_entry_once_and_survives_rotation(running: Running) -> None:
    path = running.directory / "audit.jsonl"
    plane = await running.start(audit_log=str(path))
    follower = plane.control.audit_file
    assert follower is not None
    await follower.catch_up()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    old = path.rename(path.with_suffix(".1"))
    await plane.control.keys.create("after rotation")
    await follower.catch_up()
    path.unlink()
    os.mkdir(path)  # it cannot be written for a while
    await plane.control.keys.create("meanwhile")
    await follower.catch_up()
    os.rmdir(path)
    assert (await plane.client.get("/health")).status_code == 200
    await follower.catch_up()
    figures = (await plane.client.get("/metrics")).text
    assert "cove_audit_file_failures_total 0" not in figures
    assert "cove_audit_entries_lost 0" in figures
    await running.stop_server()
    lines = [*_lines(old), *_lines(path)]
    assert [line["details"].get("name") for line in _lines(path) if line["action"] == "key.created"] == ["meanwhile"]
    assert lines[-1]["action"] == "server.stopped"
    await running.start(audit_log=str(path))
    await running.stop_server()
    ids = [line["id"] for line in [*_lines(old), *_lines(path)]]
    assert len(ids) == len(set(ids))
    assert _lines(path)[-1]["action"] == "server.stopped"
    assert _lines(path)[-1]["id"] > lines[-1]["id"]


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
