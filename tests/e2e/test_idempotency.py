"""Creates that are sent again, against a real server: over lost connections, and over the death of the server."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.e2e.conftest import Serve
from tests.e2e.running_server import RunningServer, run_cove, until

BODY: dict[str, Any] = {"template_name": "base", "timeout_seconds": 300}


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """An idempotency key of this test."""
    return f"{request.node.name}-{time.time_ns()}"


@pytest.fixture
def mine(api: httpx2.Client) -> Iterator[list[str]]:
    """Ids that are killed at the end."""
    ids: list[str] = []
    yield ids
    for each in ids:
        api.delete(f"/v1/sandboxes/{each}")


def create(api: httpx2.Client, key: str, **changes: Any) -> httpx2.Response:
    return api.post("/v1/sandboxes", json={**BODY, **changes}, headers={"Idempotency-Key": key})


def listed(api: httpx2.Client) -> set[str]:
    return {each["id"] for each in api.get("/v1/sandboxes").json()["data"]}


def raw_create(url: str, *headers: str) -> socket.socket:
    """A connection on which a create was sent, and nothing read."""
    parts = urlsplit(url)
    body = b'{"template_name":"base","timeout_seconds":300,"resources":{"vcpu":1}}'
    lines = [
        "POST /v1/sandboxes HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return connection


def test_repetitions_at_once_make_one_sandbox(
    server: RunningServer, api: httpx2.Client, key: str, mine: list[str]
) -> None:
    with ThreadPoolExecutor(8) as threads:
        begun = [threads.submit(create, api, key) for _ in range(8)]
        answers = [each.result(30) for each in begun]
    assert {each.status_code for each in answers} == {201}
    ids = {each.json()["id"] for each in answers}
    mine += ids
    assert len(ids) == 1
    assert sum(each.headers.get("Idempotent-Replayed") == "true" for each in answers) == 7
    token = answers[-1].json()["auth_token"]
    agent = f"{server.url}/sandboxes/{mine[0]}/execute"
    ran = httpx2.post(
        agent, json={"code": "print(1)"}, headers={"Authorization": f"Bearer {token}"}, timeout=20, verify=False
    )
    assert ran.json()["stdout"] == "1\n"
    conflict = create(api, key, timeout_seconds=301)
    assert (conflict.status_code, conflict.json()["code"]) == (409, "CONFLICT")
    assert conflict.json()["remedy"]


@pytest.mark.parametrize("keyed", [False, True])
def test_a_client_that_goes_away_while_its_sandbox_is_made_leaves_none(
    api: httpx2.Client, server: RunningServer, key: str, keyed: bool
) -> None:
    before = listed(api)
    headers = [f"Idempotency-Key: {key}"] if keyed else []
    for _ in range(5):
        raw_create(server.url, *headers).close()
    until(lambda: listed(api) <= before, seconds=20, what="what nobody waits for is ended")
    with httpx2.Client(base_url=server.url, timeout=30, verify=False) as again:
        answer = again.post("/v1/sandboxes", json={**BODY, "resources": {"vcpu": 1}}, headers={"Idempotency-Key": key})
    assert answer.status_code == 201
    assert api.delete(f"/v1/sandboxes/{answer.json()['id']}").status_code == 200
    until(lambda: listed(api) <= before, seconds=20, what="nothing else was made")


def test_repetitions_after_the_death_of_the_server(serve: Serve, key: str) -> None:
    server = serve()
    with httpx2.Client(base_url=server.url, timeout=30, verify=False) as api:
        made = create(api, key).json()
    connections = [raw_create(server.url, f"Idempotency-Key: {key}-{number}") for number in range(4)]
    server.kill()
    for connection in connections:
        connection.close()
    again = serve()
    with httpx2.Client(base_url=again.url, timeout=30, verify=False) as api:
        repeated = create(api, key)
        assert repeated.headers["Idempotent-Replayed"] == "true"
        assert repeated.json()["id"] == made["id"]
        ids = {made["id"]}
        for number in range(4):
            answers = [create(api, f"{key}-{number}", resources={"vcpu": 1}) for _ in range(2)]
            assert len({each.json()["id"] for each in answers}) == 1
            ids.add(answers[0].json()["id"])
        assert listed(api) == ids
        assert len(ids) == 5
        for each in ids:
            api.delete(f"/v1/sandboxes/{each}")


def test_limits_that_the_operator_sets_hold_at_once(keyed_server: RunningServer) -> None:
    data_dir, namespace = str(keyed_server.data_dir), "limited"
    made = run_cove("keys", "create", "some", "--namespace", namespace, "--quiet", "--data-dir", data_dir)
    headers = {"X-API-Key": made.stdout.decode().strip()}
    with httpx2.Client(base_url=keyed_server.url, headers=headers, timeout=30, verify=False) as api:
        assert api.get("/auth/organization").json()["slug"] == namespace
        done = run_cove("namespaces", "limits", namespace, "--max-sandboxes", "2", "--data-dir", data_dir)
        assert done.returncode == 0, done.stderr

        def noticed() -> bool:
            return api.get("/auth/usage").json()["limits"]["max_concurrent_sandboxes"] == 2

        until(noticed, seconds=3, what="the server knows the limit")
        with ThreadPoolExecutor(6) as threads:
            begun = [threads.submit(create, api, f"{namespace}-{number}") for number in range(6)]
            answers = [each.result(30) for each in begun]
        assert sorted(each.status_code for each in answers) == [201, 201, 403, 403, 403, 403]
        for each in answers:
            if each.status_code == 201:
                api.delete(f"/v1/sandboxes/{each.json()['id']}")
        assert api.get("/auth/usage").json()["current_usage"]["active_sandboxes"] == 0
