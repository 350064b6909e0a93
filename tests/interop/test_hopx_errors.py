"""Each class of error that the server really answers with, and what the unmodified client makes of it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from tests.e2e.running_server import data_directory, running_server
from tests.interop import hopx
from tests.interop.javascript import JavaScript, require_javascript

errors = hopx.errors


class Case(NamedTuple):
    """A request that fails, and the exception for it. `{id}` is a sandbox that runs, `{stopped}` another one."""

    request: tuple[str, str, Any]
    raised: str
    status: int
    code: str
    key: str = "good"


CREATE = {"template_name": "base", "timeout_seconds": 600}
CREATES_A_MINUTE = 30
CASES = {
    "a field that cannot be": Case(
        ("POST", "/v1/sandboxes", {**CREATE, "timeout_seconds": -1}), "ValidationError", 400, "INVALID_REQUEST"
    ),
    "no template": Case(("POST", "/v1/sandboxes", {}), "ValidationError", 400, "MISSING_PARAMETER"),
    "another type": Case(("PUT", "/v1/sandboxes/{id}/timeout", {"timeout_seconds": "5"}), "ValidationError", 400, ""),
    "a bad cursor": Case(("GET", "/v1/sandboxes?cursor=x", None), "ValidationError", 400, "INVALID_REQUEST"),
    "what it cannot do": Case(
        ("POST", "/v1/sandboxes", {**CREATE, "isolation": "microvm"}), "ValidationError", 400, "ISOLATION_UNAVAILABLE"
    ),
    "a wrong key": Case(
        ("GET", "/v1/sandboxes", None), "AuthenticationError", 401, "AUTHENTICATION_REQUIRED", key="wrong"
    ),
    "too large a sandbox": Case(
        ("POST", "/v1/sandboxes", {**CREATE, "resources": {"vcpu": 200}}),
        "ResourceLimitError",
        403,
        "RESOURCE_LIMIT_EXCEEDED",
    ),
    "too many sandboxes": Case(
        ("POST", "/v1/sandboxes", CREATE), "ResourceLimitError", 403, "RESOURCE_LIMIT_EXCEEDED", key="full"
    ),
    "too many creates": Case(
        ("POST", "/v1/sandboxes", CREATE), "RateLimitError", 429, "RATE_LIMIT_EXCEEDED", key="busy"
    ),
    "what it must not do": Case(
        ("POST", "/v1/sandboxes", {**CREATE, "isolation": "fake"}), "APIError", 403, "FORBIDDEN"
    ),
    "an unknown sandbox": Case(
        ("GET", "/v1/sandboxes/1763382095aaaaaaaa", None), "NotFoundError", 404, "SANDBOX_NOT_FOUND"
    ),
    "an unknown template": Case(
        ("POST", "/v1/sandboxes", {**CREATE, "template_name": "nothing"}), "NotFoundError", 404, "TEMPLATE_NOT_FOUND"
    ),
    "an unknown path": Case(("GET", "/v1/nothing", None), "NotFoundError", 404, "RESOURCE_NOT_FOUND"),
    "an unknown method": Case(("PATCH", "/v1/sandboxes", {}), "APIError", 405, "METHOD_NOT_ALLOWED"),
    "a state that does not fit": Case(
        ("POST", "/v1/sandboxes/{stopped}/resume", None), "APIError", 409, "INVALID_STATE"
    ),
    "too large a body": Case(
        ("POST", "/v1/sandboxes", {**CREATE, "env_vars": {"A": "x" * 5_000_000}}), "APIError", 413, "REQUEST_TOO_LARGE"
    ),
    "a host that fails": Case(
        ("POST", "/v1/sandboxes", {"template_name": "broken"}), "ServerError", 500, "SANDBOX_START_FAILED"
    ),
}


class Place(NamedTuple):
    """A server with two sandboxes, and keys: a good one, one with a full quota, one that has created too much."""

    url: str
    keys: dict[str, str]
    running: str
    stopped: str

    def request(self, case: Case) -> tuple[str, str, Any]:
        method, path, body = case.request
        return method, path.format(id=self.running, stopped=self.stopped), body


@pytest.fixture(scope="module")
def place(built_data_dir: Path) -> Iterator[Place]:
    with data_directory(built_data_dir) as data_dir:
        _add_broken_template(data_dir, built_data_dir / "templates")
        options = ("--isolation", "namespace")
        with (
            running_server(data_dir, *options, COVE_CREATE_RATE=str(CREATES_A_MINUTE)) as server,
            httpx2.Client(base_url=server.url, timeout=30, verify=False) as client,
        ):
            keys = {
                "good": server.new_key("good"),
                "full": server.new_key("full", "--max-sandboxes", "0"),
                "busy": server.new_key("busy"),
                "wrong": "hopx_live_000000000000." + "x" * 43,
            }
            client.headers["X-API-Key"] = keys["good"]
            ids = [client.post("/v1/sandboxes", json=CREATE).json()["id"] for _ in range(2)]
            assert client.post(f"/v1/sandboxes/{ids[1]}/stop").status_code == 200
            yield Place(server.url, keys, *ids)
            for each in ids:
                client.delete(f"/v1/sandboxes/{each}")


def _add_broken_template(data_dir: Path, templates: Path) -> None:
    """One that is there and cannot be started."""
    own = data_dir / "templates"
    own.unlink()
    own.mkdir()
    for path in templates.glob("*.json"):
        shutil.copyfile(path, own / path.name)
    broken = json.loads((own / "base.json").read_text())
    (own / "broken.json").write_text(
        json.dumps(broken | {"name": "broken", "digest": "broken", "python": "/no/python"})
    )


def prepare(place: Place, case: Case) -> None:
    """Use a key up that is to have created too much."""
    if case.key == "busy":
        with httpx2.Client(
            base_url=place.url, headers={"X-API-Key": place.keys["busy"]}, timeout=30, verify=False
        ) as client:
            answers = (client.post("/v1/sandboxes", json={}).status_code for _ in range(10 * CREATES_A_MINUTE))
            assert 429 in answers


def check(raised: Any, case: Case) -> None:
    assert type(raised).__name__ == case.raised
    assert raised.status_code == case.status
    assert raised.code == case.code or not case.code
    assert raised.request_id.startswith("req_")
    assert isinstance(raised.details, dict)
    assert len(raised.message) < 2000
    assert not raised.message.startswith("{")
    if case.raised == "ResourceLimitError":
        assert raised.current >= raised.limit >= 0
    if case.raised == "RateLimitError":
        assert 0 < raised.retry_after <= 60


@pytest.mark.parametrize("name", CASES)
def test_the_sync_client_raises_the_right_class(place: Place, name: str) -> None:
    case = CASES[name]
    prepare(place, case)
    client = hopx.http.HTTPClient(api_key=place.keys[case.key], base_url=place.url, max_retries=0)
    try:
        with pytest.raises(errors.HopxError) as caught:
            method, path, body = place.request(case)
            client.request(method, path, json=body)
    finally:
        client.close()
    check(caught.value, case)


@pytest.mark.anyio
@pytest.mark.parametrize("name", CASES)
async def test_the_async_client_raises_the_right_class(place: Place, name: str) -> None:
    case = CASES[name]
    prepare(place, case)
    client = hopx.async_http.AsyncHTTPClient(api_key=place.keys[case.key], base_url=place.url, max_retries=0)
    try:
        with pytest.raises(errors.HopxError) as caught:
            method, path, body = place.request(case)
            await client.request(method, path, json=body)
    finally:
        await client.close()
    check(caught.value, case)


JAVASCRIPT_CLASSES = {
    "AUTHENTICATION_REQUIRED": "AuthenticationError",
    "RATE_LIMIT_EXCEEDED": "RateLimitError",
    "SANDBOX_NOT_FOUND": "SandboxExpiredError",
    # The client takes every 404 that says "not found" for a file's.
    "TEMPLATE_NOT_FOUND": "FileNotFoundError",
    "SANDBOX_START_FAILED": "ServerError",
}
"""Classes of `@hopx-ai/sdk` by code; others are APIError."""


def test_the_javascript_client_throws_the_right_class(place: Place) -> None:
    require_javascript()
    calls: dict[str, list[Any]] = {}
    for name, case in CASES.items():
        if case.status != 413:  # the same code as in Python, and five megabytes to hand over
            prepare(place, case)
            method, path, body = place.request(case)
            calls[name] = [method.lower(), path, body, place.keys[case.key]]
    seen = JavaScript(place.url).run(f"""
        const found = {{}};
        for (const [name, [method, path, body, apiKey]] of Object.entries({json.dumps(calls)})) {{
          const client = new hopx.HTTPClient({{ ...there, apiKey, maxRetries: 1 }});
          const call = () => method === 'get' ? client.get(path) : client[method](path, body);
          // The allowance of a key that was used up grows again meanwhile.
          for (let left = {10 * CREATES_A_MINUTE}; !found[name]; left--) {{
            try {{
              found[name] = await refused(call);
            }} catch (problem) {{
              if (!left || !problem.message.includes('not refused')) throw problem;
            }}
          }}
        }}
        return found;
    """)
    for name, thrown in seen.items():
        case = CASES[name]
        expected = JAVASCRIPT_CLASSES.get(case.code, "APIError") if case.code else "APIError"
        assert thrown["class"] == expected, (name, thrown)
        assert thrown["requestId"].startswith("req_"), name
        assert "[object" not in thrown["message"], name
        if expected == "APIError":
            assert thrown["statusCode"] == case.status, name
            assert thrown["code"] == case.code or not case.code, name
