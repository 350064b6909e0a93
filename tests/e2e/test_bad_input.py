"""Every kind of bad input against a running server: a typed refusal that says what to do, and nothing stays."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.e2e.running_server import RunningServer

from cove import Sandbox

UNKNOWN_ID = "1763382095aaaaaaaa"
TEN_MEGABYTES = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def sandbox(server: RunningServer) -> Iterator[Sandbox]:
    with Sandbox.create(base_url=server.url, timeout_seconds=300) as created:
        yield created


@pytest.fixture(scope="module")
def agent(sandbox: Sandbox) -> Iterator[httpx2.Client]:
    """Plain HTTP to the agent of `sandbox`."""
    headers = {"Authorization": f"Bearer {sandbox.get_token()}"}
    with httpx2.Client(
        base_url=sandbox.agent_url, headers=headers, timeout=30, trust_env=False, verify=False
    ) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_changes(server: RunningServer, api: httpx2.Client, sandbox: Sandbox) -> Iterator[None]:
    """The same sandboxes as before, and no error in the log that the server did not foresee."""
    before = sandbox_ids(api)
    yield
    assert sandbox_ids(api) == before
    assert sandbox.run_code("print('well')").stdout == "well\n"
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "unhandled" not in log


def sandbox_ids(api: httpx2.Client) -> list[str]:
    return sorted(one["id"] for one in api.get("/v1/sandboxes?limit=1000").json()["data"])


def refused(answer: httpx2.Response, *, code: str, status: int = 400) -> dict[str, Any]:
    """The body of a refusal, which has everything that a person and every client needs."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert body["message"]
    assert body["remedy"]
    assert body["request_id"] == answer.headers["X-Request-ID"]
    if isinstance(body["error"], dict):
        assert body["error"]["code"] == code
        assert isinstance(body["error"]["details"], dict)
    else:
        assert body["error"] == body["message"]
        assert isinstance(body["details"], dict)
    return body


@pytest.mark.parametrize(
    "body",
    [{"template_name": "no-such-template"}, {"template_id": "999999"}, {"template_id": 999999}],
)
def test_an_unknown_template(api: httpx2.Client, body: dict[str, Any]) -> None:
    refused(api.post("/v1/sandboxes", json=body), code="TEMPLATE_NOT_FOUND", status=404)


def test_no_template_at_all(api: httpx2.Client) -> None:
    refused(api.post("/v1/sandboxes", json={}), code="MISSING_PARAMETER")


@pytest.mark.parametrize("name", ["nope", "..", "%00", "%ff%fe", "a" * 3000, "base%2f..%2fbase"])
def test_a_template_that_cannot_be(api: httpx2.Client, name: str) -> None:
    answer = api.get(f"/v1/templates/{name}")
    refused(answer, code=answer.json()["code"], status=404)
    assert answer.json()["code"] in {"TEMPLATE_NOT_FOUND", "RESOURCE_NOT_FOUND"}


@pytest.mark.parametrize("sandbox_id", [UNKNOWN_ID, "nope", "%00", "%ff", "a" * 3000, "..%2f..%2fetc"])
@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/token/refresh")]
)
def test_an_unknown_sandbox(api: httpx2.Client, sandbox_id: str, method: str, suffix: str) -> None:
    answer = api.request(method, f"/v1/sandboxes/{sandbox_id}{suffix}")
    refused(answer, code=answer.json()["code"], status=404)
    assert answer.json()["code"] in {"SANDBOX_NOT_FOUND", "RESOURCE_NOT_FOUND"}


@pytest.mark.parametrize(
    "content", [b"{", b"", b"[]", b"null", b'"text"', b"\xff\xfe{}", b'{"template_name": "base"', b"[" * 100_000]
)
def test_broken_json(api: httpx2.Client, agent: httpx2.Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for client, path in ((api, "/v1/sandboxes"), (agent, "execute"), (agent, "files/write"), (agent, "commands/run")):
        answer = client.post(path, content=content, headers=headers)
        refused(answer, code=answer.json()["code"])
        assert answer.json()["code"] in {"INVALID_JSON", "INVALID_REQUEST", "MISSING_PARAMETER"}


@pytest.mark.parametrize(
    "value", ["-1", "1e400", "NaN", "Infinity", "-Infinity", "9999999999999999999", "1.5", '"soon"', "[]", "true"]
)
def test_timeouts_of_sandboxes(api: httpx2.Client, sandbox: Sandbox, value: str) -> None:
    headers = {"Content-Type": "application/json"}
    create = f'{{"template_name": "base", "timeout_seconds": {value}}}'.encode()
    refused(api.post("/v1/sandboxes", content=create, headers=headers), code="INVALID_REQUEST")
    change = f'{{"timeout_seconds": {value}}}'.encode()
    path = f"/v1/sandboxes/{sandbox.sandbox_id}/timeout"
    refused(api.put(path, content=change, headers=headers), code="INVALID_REQUEST")


@pytest.mark.parametrize("value", ["-1", "0", "NaN", "Infinity", "1e400", "1e9", '"soon"', "[]"])
def test_timeouts_of_programs(agent: httpx2.Client, value: str) -> None:
    headers = {"Content-Type": "application/json"}
    for path, field in (("execute", "code"), ("commands/run", "command")):
        content = f'{{"{field}": "echo 1", "language": "bash", "timeout": {value}}}'.encode()
        refused(agent.post(path, content=content, headers=headers), code="INVALID_REQUEST")


@pytest.mark.parametrize(
    "variables",
    [{"A=B": "1"}, {"": "1"}, {"A\0": "1"}, {"A\nB": "1"}, {"A": "\0"}, {"A": 1}, {"A": None}, ["A"], "A=1"],
)
def test_variables(api: httpx2.Client, agent: httpx2.Client, variables: object) -> None:
    refused(api.post("/v1/sandboxes", json={"template_name": "base", "env_vars": variables}), code="INVALID_REQUEST")
    refused(agent.post("execute", json={"code": "1", "env": variables}), code="INVALID_REQUEST")
    refused(agent.post("commands/run", json={"command": "true", "env": variables}), code="INVALID_REQUEST")
    for method in ("PUT", "PATCH"):
        refused(agent.request(method, "env", json={"env_vars": variables}), code="INVALID_REQUEST")


def test_variables_that_are_too_many_or_too_long(api: httpx2.Client, agent: httpx2.Client) -> None:
    for variables in ({f"V{number}": "" for number in range(2000)}, {"A": "x" * 600_000}, {"N" * 5000: ""}):
        body = {"template_name": "base", "env_vars": variables}
        refused(api.post("/v1/sandboxes", json=body), code="INVALID_REQUEST")
        refused(agent.put("env", json={"env_vars": variables}), code="INVALID_REQUEST")


def test_an_unknown_language(agent: httpx2.Client) -> None:
    for language in ("ruby", "", "python; rm -rf /", "\0", "x" * 100_000):
        answer = agent.post("execute", json={"code": "1", "language": language})
        body = refused(answer, code="UNSUPPORTED_LANGUAGE")
        assert "python" in body["remedy"]
        assert len(body["message"]) < 1000


@pytest.mark.parametrize("path", ["/tmp/%00", "", "/tmp/" + "n" * 300, "/tmp" + "/d" * 3000])
def test_paths_that_cannot_be(agent: httpx2.Client, path: str) -> None:
    for method, call in (("GET", "files/read"), ("GET", "files/download"), ("GET", "files/list")):
        refused(agent.request(method, f"{call}?path={path}"), code="INVALID_PATH")
    refused(agent.delete(f"files/remove?path={path}"), code="INVALID_PATH")


@pytest.mark.parametrize("path", ["/tmp/\0", "", "/tmp/" + "n" * 300, "/tmp/\udcff"])
def test_paths_in_bodies_that_cannot_be(agent: httpx2.Client, path: str) -> None:
    for call, more in (("files/write", {"content": "x"}), ("files/mkdir", {})):
        answer = agent.post(call, content=json.dumps({"path": path, **more}).encode())
        refused(answer, code=answer.json()["code"])
        assert answer.json()["code"] in {"INVALID_PATH", "INVALID_JSON", "INVALID_REQUEST"}


def test_dots_do_not_lead_out_of_the_sandbox(server: RunningServer, agent: httpx2.Client, sandbox: Sandbox) -> None:
    up = "/workspace" + "/.." * 40
    for path in (server.data_dir / "cove.db", server.log, server.data_dir / "keys" / "agent-tokens.pem"):
        assert path.exists()
        refused(agent.get("files/read", params={"path": f"{up}{path}"}), code="FILE_NOT_FOUND", status=404)
    assert agent.get("files/read", params={"path": f"{up}/etc/passwd"}).json()["content"] == (
        sandbox.commands.run("cat /etc/passwd").stdout
    )


@pytest.mark.parametrize(
    "suffix", ["/../../v1/sandboxes", "/..%2f..%2fv1%2fsandboxes", "/%2e%2e/%2e%2e/v1/sandboxes", "//v1/sandboxes"]
)
def test_dots_in_an_address_do_not_reach_the_control_plane(agent: httpx2.Client, suffix: str) -> None:
    address = urlsplit(str(agent.base_url))
    target = address.path.rstrip("/") + suffix
    answer = agent.get("", extensions={"target": target.encode()})
    assert answer.status_code in {400, 404}, answer.text
    assert "data" not in answer.json()


def test_code_of_ten_megabytes(agent: httpx2.Client) -> None:
    code = "#" * TEN_MEGABYTES
    refused(agent.post("execute", json={"code": code}), code="REQUEST_TOO_LARGE", status=413)
    refused(agent.post("commands/run", json={"command": code}), code="REQUEST_TOO_LARGE", status=413)


def test_bodies_over_the_limit(api: httpx2.Client, agent: httpx2.Client) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 1024 * 1024

    large = json.dumps({"template_name": "base", "region": "x" * 2 * 1024 * 1024}).encode()
    refused(api.post("/v1/sandboxes", content=large), code="REQUEST_TOO_LARGE", status=413)
    for client, path in ((api, "/v1/sandboxes"), (agent, "execute")):
        refused(client.post(path, content=parts()), code="REQUEST_TOO_LARGE", status=413)


def test_limits_and_isolation_that_cannot_be_had(api: httpx2.Client) -> None:
    for resources in ({"vcpu": 0}, {"vcpu": -1}, {"memory_mb": 1}, {"disk_mb": 10**12}, {"vcpu": "two"}):
        body = {"template_name": "base", "resources": resources}
        refused(api.post("/v1/sandboxes", json=body), code="INVALID_REQUEST")
    for isolation in ("none", ""):
        answer = api.post("/v1/sandboxes", json={"template_name": "base", "isolation": isolation})
        refused(answer, code="INVALID_REQUEST")
    weaker = api.post("/v1/sandboxes", json={"template_name": "base", "isolation": "fake"})
    refused(weaker, code="FORBIDDEN", status=403)
    above = api.post("/v1/sandboxes", json={"template_name": "base", "resources": {"memory_mb": 1024 * 1024}})
    refused(above, code="RESOURCE_LIMIT_EXCEEDED", status=403)
    # Clients take a 403 for a quota by this word.
    assert "limit" in above.json()["message"].lower()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/no-such-thing", 404, "RESOURCE_NOT_FOUND"),
        ("GET", "/", 404, "RESOURCE_NOT_FOUND"),
        ("PATCH", "/v1/sandboxes", 405, "METHOD_NOT_ALLOWED"),
        ("TRACE", "/v1/sandboxes", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/sandboxes?limit=-1", 400, "INVALID_REQUEST"),
        ("GET", "/v1/sandboxes?limit=many", 400, "INVALID_REQUEST"),
        ("GET", "/v1/sandboxes?cursor=never-given", 400, "INVALID_REQUEST"),
        ("GET", "/v1/sandboxes?cursor=%00%ff", 400, "INVALID_REQUEST"),
        ("GET", "/v1/sandboxes?status=excellent", 400, "INVALID_REQUEST"),
        ("POST", "/execute", 401, "UNAUTHORIZED"),
        ("GET", f"/sandboxes/{UNKNOWN_ID}/info", 401, "UNAUTHORIZED"),
    ],
)
def test_paths_methods_and_queries(api: httpx2.Client, method: str, path: str, status: int, code: str) -> None:
    answer = api.request(method, path)
    refused(answer, code=code, status=status)


def test_pages_of_other_origins(api: httpx2.Client) -> None:
    answer = api.post("/v1/sandboxes", json={"template_name": "base"}, headers={"Origin": "http://evil.example"})
    refused(answer, code="FORBIDDEN", status=403)
    refused(api.get("/v1/sandboxes", headers={"Host": "evil.example"}), code="FORBIDDEN", status=403)
