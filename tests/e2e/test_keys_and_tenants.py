"""Keys open a server; each namespace sees only what is its own, on both planes."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, run_cove, until

from cove import Sandbox
from cove.models.errors import AuthenticationFailed, NotFound

MakeKey = Callable[..., str]
REVOKED_SECONDS = 2.0


@pytest.fixture(scope="module")
def make_key(keyed_server: RunningServer) -> MakeKey:
    """`cove keys create` while the server runs."""
    numbers = itertools.count()

    def make(*, namespace: str = "default", name: str = "") -> str:
        name = name or f"key-{next(numbers)}"
        data_dir = str(keyed_server.data_dir)
        made = run_cove("keys", "create", name, "--quiet", "--namespace", namespace, "--data-dir", data_dir)
        assert made.returncode == 0, made.stderr
        assert made.stderr == b""
        assert made.stdout.count(b"\n") == 1
        return made.stdout.decode().strip()

    return make


def client_of(server: RunningServer, key: str) -> httpx2.Client:
    return httpx2.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=30, trust_env=False, verify=False)


@pytest.fixture(scope="module")
def tenants(keyed_server: RunningServer, make_key: MakeKey) -> Iterator[tuple[Sandbox, Sandbox, str, str]]:
    """Two sandboxes of two namespaces, and the keys of these."""
    first, second = make_key(namespace="red"), make_key(namespace="blue")
    with (
        Sandbox.create("base", base_url=keyed_server.url, api_key=first, timeout_seconds=300) as red,
        Sandbox.create("base", base_url=keyed_server.url, api_key=second, timeout_seconds=300) as blue,
    ):
        yield red, blue, first, second


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "nonsense"},
        {"X-API-Key": "hopx_live_000000000000." + "x" * 43},
        {"X-API-Key": "x" * 10_000},
        {"Authorization": "Bearer hopx_live_000000000000." + "x" * 43},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer a.b.c"},
    ],
)
def test_without_a_valid_key_nothing_opens(keyed_server: RunningServer, headers: dict[str, str]) -> None:
    with httpx2.Client(base_url=keyed_server.url, timeout=30, trust_env=False, verify=False) as client:
        assert client.get("/health").status_code == 200
        for method, path in (
            ("POST", "/v1/sandboxes"),
            ("GET", "/v1/sandboxes"),
            ("GET", "/v1/templates"),
            ("DELETE", "/v1/sandboxes/1763382095aaaaaaaa"),
            ("GET", "/metrics"),
        ):
            answer = client.request(method, path, headers=headers, json={"template_name": "base"})
            assert answer.status_code == 401, f"{method} {path}: {answer.text}"
            assert answer.json()["code"] in {"AUTHENTICATION_REQUIRED", "UNAUTHORIZED"}
            assert answer.json()["remedy"]


def test_a_key_that_was_just_made_works_in_both_headers(keyed_server: RunningServer, make_key: MakeKey) -> None:
    key = make_key()
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        assert httpx2.get(f"{keyed_server.url}/v1/templates", headers=headers, verify=False).status_code == 200


def test_the_secret_is_kept_nowhere(keyed_server: RunningServer, make_key: MakeKey) -> None:
    key = make_key(name="kept-nowhere")
    listing = run_cove("keys", "list", "--json", "--data-dir", str(keyed_server.data_dir))
    assert b"kept-nowhere" in listing.stdout
    secret = key.partition(".")[2].encode()
    assert secret not in listing.stdout + listing.stderr
    with client_of(keyed_server, key) as client:
        assert client.get("/v1/sandboxes").status_code == 200
    for path in keyed_server.data_dir.glob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path


def test_a_revoked_key_closes_within_two_seconds(keyed_server: RunningServer, make_key: MakeKey) -> None:
    key = make_key(name="to-be-revoked")
    with client_of(keyed_server, key) as client:
        assert client.get("/v1/sandboxes").status_code == 200
        revoked = run_cove("keys", "revoke", "to-be-revoked", "--data-dir", str(keyed_server.data_dir))
        assert revoked.returncode == 0, revoked.stderr
        until(
            lambda: client.get("/v1/sandboxes").status_code == 401, seconds=REVOKED_SECONDS, what="the key is refused"
        )
    with pytest.raises(AuthenticationFailed):
        Sandbox.list(base_url=keyed_server.url, api_key=key)


def test_tenants_do_not_find_each_other(
    keyed_server: RunningServer, tenants: tuple[Sandbox, Sandbox, str, str]
) -> None:
    red, blue, first, second = tenants
    for key, own, others in ((first, red, blue), (second, blue, red)):
        with client_of(keyed_server, key) as client:
            assert [one["id"] for one in client.get("/v1/sandboxes").json()["data"]] == [own.sandbox_id]
            path = f"/v1/sandboxes/{others.sandbox_id}"
            calls: list[tuple[str, str, Any]] = [
                ("GET", path, None),
                ("DELETE", path, None),
                ("PUT", f"{path}/timeout", {"timeout_seconds": 1}),
                ("POST", f"{path}/pause", None),
                ("POST", f"{path}/resume", None),
                ("POST", f"{path}/stop", None),
                ("POST", f"{path}/token/refresh", None),
            ]
            for method, target, body in calls:
                answer = client.request(method, target, json=body)
                assert (answer.status_code, answer.json()["code"]) == (404, "SANDBOX_NOT_FOUND"), f"{method} {target}"
                # What is another's looks exactly like what never was.
                never = client.request(method, target.replace(others.sandbox_id, "1763382095aaaaaaaa"), json=body)
                assert answer.json()["message"].replace(others.sandbox_id, "") == (
                    never.json()["message"].replace("1763382095aaaaaaaa", "")
                )
        assert others.run_code("print('untouched')").stdout == "untouched\n"
    with pytest.raises(NotFound):
        Sandbox.connect(blue.sandbox_id, base_url=keyed_server.url, api_key=first)


def test_neither_keys_nor_other_tokens_open_an_agent(
    keyed_server: RunningServer, tenants: tuple[Sandbox, Sandbox, str, str]
) -> None:
    red, blue, first, _ = tenants
    token, address = red.get_token(), blue.agent_url
    with httpx2.Client(timeout=30, trust_env=False, verify=False) as client:
        for method, path in (("GET", "/info"), ("POST", "/execute"), ("GET", "/files/read?path=/etc/passwd")):
            refused = client.request(method, address + path, headers={"Authorization": f"Bearer {token}"})
            assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
            assert refused.json()["remedy"]
            for headers in ({"X-API-Key": first}, {"Authorization": f"Bearer {first}"}, {}):
                unknown = client.request(method, address + path, headers=headers)
                assert (unknown.status_code, unknown.json()["code"]) == (401, "UNAUTHORIZED")
        # Addressed by the token alone, it leads to its own sandbox.
        own = client.get(f"{keyed_server.url}/info", headers={"Authorization": f"Bearer {token}"})
        assert own.json()["vm_id"] == red.sandbox_id


def test_an_agent_token_opens_no_control_plane(
    keyed_server: RunningServer, tenants: tuple[Sandbox, Sandbox, str, str]
) -> None:
    token = tenants[0].get_token()
    for headers in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": token}):
        answer = httpx2.get(f"{keyed_server.url}/v1/sandboxes", headers=headers, verify=False)
        assert answer.status_code == 401


def test_a_token_ends_with_its_sandbox(keyed_server: RunningServer, make_key: MakeKey) -> None:
    with Sandbox.create("base", base_url=keyed_server.url, api_key=make_key(), timeout_seconds=60) as sandbox:
        headers, address = {"Authorization": f"Bearer {sandbox.get_token()}"}, sandbox.agent_url
        assert httpx2.get(f"{address}/info", headers=headers, verify=False).status_code == 200
    gone = httpx2.get(f"{address}/info", headers=headers, verify=False)
    assert (gone.status_code, gone.json()["code"]) == (404, "SANDBOX_NOT_FOUND")
    by_token = httpx2.get(f"{keyed_server.url}/info", headers=headers, verify=False)
    assert by_token.status_code == 404


def test_a_token_that_was_tampered_with(tenants: tuple[Sandbox, Sandbox, str, str]) -> None:
    red = tenants[0]
    head, claims, signature = red.get_token().split(".")
    for token in (
        f"{head}.{claims}.",
        f"{head}.{claims}.{signature[::-1]}",
        f"eyJhbGciOiJub25lIn0.{claims}.",
        f"{head}.{claims[:-2]}.{signature}",
    ):
        answer = httpx2.get(f"{red.agent_url}/info", headers={"Authorization": f"Bearer {token}"}, verify=False)
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
