"""What clients get wrong, or try: a 4xx with code, message and remedy, and nothing changed."""

import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from tests.server.conftest import Plane, Running

from cove.models.errors import ERRORS

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def plane(shared_plane: Plane) -> Plane:
    """What is refused changes nothing."""
    return shared_plane


def check(answer: httpx2.Response, status: int, code: str) -> dict[str, object]:
    """The hybrid shape of every refusal, from which each client reads its part."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    nested = body["error"]
    assert body["code"] == nested["code"] == code
    assert body["message"] == nested["message"]
    assert body["message"]
    assert isinstance(nested["details"], dict)
    assert body["request_id"] == nested["request_id"] == answer.headers["X-Request-ID"]
    assert code in ERRORS
    assert answer.headers["Content-Type"] == "application/json"
    return body


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"{", "INVALID_JSON", None),
        (b"", "INVALID_JSON", None),
        (b"null", "INVALID_JSON", None),
        (b"[]", "INVALID_JSON", None),
        (b'"x"', "INVALID_JSON", None),
        (b"\xff\xfe", "INVALID_JSON", None),
        (b"[" * 100_000, "INVALID_JSON", None),
        (b"{}", "MISSING_PARAMETER", "template_name"),
        (b'{"template_name": 5}', "INVALID_REQUEST", "template_name"),
        (b'{"template_name": "base", "timeout_seconds": -1}', "INVALID_REQUEST", "timeout_seconds"),
        (b'{"template_name": "base", "timeout_seconds": 1e300}', "INVALID_REQUEST", "timeout_seconds"),
        (b'{"template_name": "base", "timeout_seconds": NaN}', "INVALID_REQUEST", "timeout_seconds"),
        (b'{"template_name": "base", "timeout_seconds": Infinity}', "INVALID_REQUEST", "timeout_seconds"),
        (b'{"template_name": "base", "timeout_seconds": 2.5}', "INVALID_REQUEST", "timeout_seconds"),
        (b'{"template_name": "base", "timeout_seconds": 99999999999999999999}', "INVALID_REQUEST", "timeout_seconds"),
        (b'{"template_name": "base", "timeout_seconds": "soon"}', "INVALID_REQUEST", "timeout_seconds"),
        (b'{"template_name": "base", "region": "eu\\u0000"}', "INVALID_REQUEST", "region"),
        (b'{"template_name": "base", "region": "\\ud800"}', "INVALID_REQUEST", "region"),
        (b'{"template_id": true}', "INVALID_REQUEST", None),
        (b'{"template_name": "base", "env_vars": {"A=B": "1"}}', "INVALID_REQUEST", "env_vars"),
        (b'{"template_name": "base", "env_vars": {"": "1"}}', "INVALID_REQUEST", "env_vars"),
        (b'{"template_name": "base", "env_vars": {"A\\u0000": "1"}}', "INVALID_REQUEST", "env_vars"),
        (b'{"template_name": "base", "env_vars": {"A\\n": "1"}}', "INVALID_REQUEST", "env_vars"),
        (b'{"template_name": "base", "env_vars": {"A": "\\u0000"}}', "INVALID_REQUEST", "env_vars"),
        (b'{"template_name": "base", "env_vars": {"A": "\\ud800"}}', "INVALID_REQUEST", "env_vars"),
        (b'{"template_name": "base", "env_vars": {"A": 1}}', "INVALID_REQUEST", "env_vars.A"),
        (b'{"template_name": "base", "resources": {"vcpu": 0}}', "INVALID_REQUEST", "resources.vcpu"),
        (b'{"template_name": "base", "isolation": "wishful"}', "INVALID_REQUEST", "isolation"),
    ],
)
async def test_bodies_that_do_not_fit(plane: Plane, body: bytes, code: str, field: str | None) -> None:
    before = set(plane.host.ids)
    answer = await plane.client.post("/v1/sandboxes", content=body, headers=JSON)
    found = check(answer, 400, code)
    assert found["remedy"]
    if field is not None:
        assert found["details"]["field"] == field  # type: ignore[index]
        assert field.partition(".")[0] in str(found["message"])
    assert plane.host.ids == before


@pytest.mark.parametrize("body", [b'{"timeout_seconds": -1}', b'{"timeout_seconds": NaN}', b"{}", b"{", b""])
async def test_timeouts_that_do_not_fit(plane: Plane, body: bytes) -> None:
    made = (await plane.client.post("/v1/sandboxes", json={"template_name": "base"})).json()
    answer = await plane.client.put(f"/v1/sandboxes/{made['id']}/timeout", content=body, headers=JSON)
    assert answer.status_code == 400
    again = (await plane.client.get(f"/v1/sandboxes/{made['id']}")).json()
    assert again["expires_at"] == made["expires_at"]


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=99999", "status=odd", "cursor=%00"])
async def test_queries_that_do_not_fit(plane: Plane, query: str) -> None:
    check(await plane.client.get(f"/v1/sandboxes?{query}"), 400, "INVALID_REQUEST")


async def test_wide_open_doors_are_closed(plane: Plane) -> None:
    for method, path in (
        ("GET", "/v1/sandboxes"),
        ("POST", "/v1/sandboxes"),
        ("GET", "/v1/sandboxes/1763382095i648uu1o"),
        ("DELETE", "/v1/sandboxes/1763382095i648uu1o"),
        ("GET", "/v1/templates"),
        ("GET", "/v1/templates/base"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/nothing"),
        ("OPTIONS", "/v1/sandboxes"),
        ("GET", "//health"),
        ("GET", "/health/"),
    ):
        body = check(await plane.nobody.request(method, path), 401, "AUTHENTICATION_REQUIRED")
        assert "cove keys create" in str(body["remedy"])


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "nonsense"},
        {"X-API-Key": "hopx_live_aaaaaaaaaaaa." + "A" * 43},
        {"X-API-Key": "A" * 10_000},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
        {"X-API-Key": ""},
    ],
)
async def test_wrong_keys(plane: Plane, headers: dict[str, str]) -> None:
    answer = await plane.nobody.get("/v1/sandboxes", headers=headers)
    body = check(answer, 401, "AUTHENTICATION_REQUIRED")
    assert "A" * 40 not in str(body)


async def test_keys_in_the_query_do_not_count(plane: Plane) -> None:
    key = plane.client.headers["X-API-Key"]
    check(await plane.nobody.get(f"/v1/sandboxes?api_key={key}&X-API-Key={key}"), 401, "AUTHENTICATION_REQUIRED")


async def test_an_agents_token_is_no_key(plane: Plane) -> None:
    made = (await plane.client.post("/v1/sandboxes", json={"template_name": "base"})).json()
    headers = {"Authorization": f"Bearer {made['auth_token']}"}
    check(await plane.nobody.get("/v1/sandboxes", headers=headers), 401, "AUTHENTICATION_REQUIRED")


async def test_nothing_redirects_and_what_is_not_there_is_typed(plane: Plane) -> None:
    check(await plane.client.get("/v1/sandboxes/"), 404, "RESOURCE_NOT_FOUND")
    check(await plane.client.get("/nothing"), 404, "RESOURCE_NOT_FOUND")
    answer = await plane.client.patch("/v1/sandboxes")
    check(answer, 405, "METHOD_NOT_ALLOWED")
    assert "Allow" in answer.headers
    check(await plane.client.get("/v1/sandboxes/..%2f..%2fetc"), 404, "RESOURCE_NOT_FOUND")
    check(await plane.client.get("/v1/sandboxes/%00"), 404, "SANDBOX_NOT_FOUND")
    check(await plane.client.get(f"/v1/templates/{'x' * 5000}"), 404, "TEMPLATE_NOT_FOUND")


async def test_large_bodies_are_refused_by_announcement_and_by_count(plane: Plane) -> None:
    before = set(plane.host.ids)
    large = b'{"template_name": "base", "x": "' + b"A" * (1024 * 1024) + b'"}'
    check(await plane.client.post("/v1/sandboxes", content=large, headers=JSON), 413, "REQUEST_TOO_LARGE")

    async def unannounced() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    check(await plane.client.post("/v1/sandboxes", content=unannounced(), headers=JSON), 413, "REQUEST_TOO_LARGE")
    assert plane.host.ids == before


async def test_request_ids_are_kept_when_harmless(plane: Plane) -> None:
    kept = await plane.nobody.get("/health", headers={"X-Request-ID": "my-id_1.2"})
    assert kept.headers["X-Request-ID"] == kept.json()["request_id"] == "my-id_1.2"
    for bad in ("", "a b", "x" * 129, "é", "<script>"):
        answer = await plane.nobody.get("/health", headers=[(b"X-Request-ID", bad.encode())])
        assert answer.headers["X-Request-ID"].startswith("req_")


async def test_pages_of_other_origins_are_refused(running: Running) -> None:
    plane = await running.start(dev=True, allowed_origins=("https://console.example",))
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9999"):
        answer = await plane.nobody.post("/v1/sandboxes", json={"template_name": "base"}, headers={"Origin": origin})
        check(answer, 403, "FORBIDDEN")
    plain = {"Content-Type": "text/plain"}
    assert (
        await plane.nobody.post("/v1/sandboxes", content=b'{"template_name":"base"}', headers=plain)
    ).status_code == 400
    for origin in ("http://127.0.0.1:5555", "https://console.example"):
        assert (await plane.nobody.get("/v1/templates", headers={"Origin": origin})).status_code == 200
    assert plane.host.ids == set()


async def test_dev_needs_no_key_and_takes_any(running: Running) -> None:
    plane = await running.start(dev=True)
    assert (await plane.nobody.get("/v1/sandboxes")).status_code == 200
    assert (await plane.nobody.get("/v1/sandboxes", headers={"X-API-Key": "anything"})).status_code == 200
    assert (await plane.nobody.get("/metrics")).status_code == 200


async def test_a_bug_shows_nothing_of_itself(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the secret is 42 at /var/lib/cove")

    monkeypatch.setattr(plane.host, "create", broken)
    answer = await plane.client.post("/v1/sandboxes", json={"template_name": "base"})
    body = check(answer, 500, "INTERNAL_ERROR")
    assert "42" not in json.dumps(body).replace(str(body["request_id"]), "")
    assert "Traceback" not in json.dumps(body)


async def test_the_document_is_about_what_is_answered(plane: Plane) -> None:
    document = (await plane.nobody.get("/openapi.json")).json()
    create = document["paths"]["/v1/sandboxes"]["post"]
    assert {"201", "400", "401", "404", "409", "413", "429", "503"} < create["responses"].keys()
    assert create["security"]
    assert "security" not in document["paths"]["/health"]["get"]
    assert "CreateSandbox" in create["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert "422" not in json.dumps(document["paths"])
    assert "HTTPValidationError" not in json.dumps(document)
