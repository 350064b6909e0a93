"""The audit log of a real server: what two tenants did is told truthfully, to each its own, and to the operator all."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, run_cove, until

from cove import Sandbox
from cove.sdk import ControlPlane


@pytest.fixture(scope="module")
def operator(keyed_server: RunningServer) -> Iterator[ControlPlane]:
    with ControlPlane(base_url=keyed_server.url, api_key=keyed_server.new_key("operator", "--namespace", "*")) as all_:
        yield all_


def key_id(key: str) -> str:
    return key.removeprefix("hopx_live_").partition(".")[0]


def said(server: RunningServer, key: str, *arguments: str) -> list[Any]:
    done = run_cove("audit", *arguments, "--json", "--base-url", server.url, "--api-key", key)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)


def test_what_two_tenants_did_is_told_to_each_its_own(keyed_server: RunningServer, operator: ControlPlane) -> None:
    red, blue = (keyed_server.new_key(name, "--namespace", f"audit-{name}") for name in ("red", "blue"))
    secret = "print('nobody writes this down')"
    with Sandbox.create("base", base_url=keyed_server.url, api_key=red, timeout_seconds=300) as one:
        one.run_code(secret)
        one.commands.run("true")
        one.files.write("/workspace/x", "y")
        ids = {"red": one.sandbox_id}
        with Sandbox.create("base", base_url=keyed_server.url, api_key=blue, timeout_seconds=300) as other:
            ids["blue"] = other.sandbox_id

    def of_red() -> list[Any]:
        return [entry for entry in operator.audit(sandbox_id=ids["red"]) if entry.action != "sandbox.token_issued"]

    until(lambda: len(of_red()) >= 5, seconds=10, what="the entries are written")
    found = sorted(
        of_red(), key=lambda entry: entry.at, reverse=True
    )  # entries about agents are written a moment later
    assert [entry.action for entry in reversed(found)] == [
        "sandbox.created", "code.run", "command.run", "files.changed", "sandbox.ended",
    ]  # fmt: skip
    assert {(entry.actor, entry.namespace, entry.outcome) for entry in found} == {(key_id(red), "audit-red", "ok")}
    assert {entry.address for entry in found} == {"127.0.0.1"}
    assert all(entry.request_id for entry in found)
    assert "nobody writes" not in " ".join(entry.model_dump_json() for entry in found)

    shown = said(keyed_server, red, "--since", "1h", "--limit", "1000")
    assert {entry["namespace"] for entry in shown} == {"audit-red"}
    assert ids["blue"] not in json.dumps(shown)
    (created,) = said(keyed_server, red, "--sandbox", ids["red"], "--action", "sandbox.created")
    assert created["actor"] == key_id(red)
    assert said(keyed_server, red, "--sandbox", ids["blue"]) == []
    table = run_cove("audit", "--key", key_id(red), "--base-url", keyed_server.url, "--api-key", red)
    assert b"code.run" in table.stdout
    assert [entry.actor for entry in operator.audit(subject=key_id(red), action="key.")] == ["operator"]


def test_a_flood_of_bad_keys_and_tokens_stays_small(keyed_server: RunningServer, operator: ControlPlane) -> None:
    def refused() -> list[Any]:
        return list(operator.audit(action="request.refused", actor="anonymous"))

    before = len(refused())
    with httpx2.Client(base_url=keyed_server.url, timeout=30, trust_env=False, verify=False) as client:
        for number in range(300):
            client.get("/v1/sandboxes", headers={"X-API-Key": f"hopx_live_{number:012}." + "x" * 43})
            client.post("/sandboxes/1763382095aaaaaaaa/execute", headers={"Authorization": "Bearer a.b.c"})
    until(lambda: len(refused()) > before or before > 0, seconds=10, what="refusals are noted")
    found = refused()
    assert len(found) <= before + 12
    assert "xxxx" not in " ".join(entry.model_dump_json() for entry in found)


def test_bad_questions_are_answered_with_what_to_do(keyed_server: RunningServer) -> None:
    done = run_cove("audit", "--since", "yesterday", "--base-url", keyed_server.url, "--api-key", "k")
    assert done.returncode == 1
    assert b"30m" in done.stderr
    helped = run_cove("audit", "--help")
    assert b"cove audit --sandbox" in helped.stdout
