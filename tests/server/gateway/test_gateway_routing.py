"""Where requests go."""

import json
from pathlib import Path

import pytest

from cove.core.tokens import AgentClaims, PreviewClaims
from cove.models.errors import error
from cove.models.previews import PreviewTerms
from cove.models.sandboxes import SandboxStatus
from cove.server.gateway.heads import parse_request
from cove.server.gateway.refusals import Refuse, new_request_id, render
from cove.server.gateway.routing import Route, ToAgent, ToControlPlane, decide
from cove.server.gateway.settings import GatewaySettings

A = "1763382095aaaaaaaa"
B = "1763382095bbbbbbbb"
GONE = "1763382095cccccccc"
PAUSED = "1763382095dddddddd"


class _Directory:
    def socket_of(self, sandbox_id: str) -> Path | None:
        return Path(f"/run/{sandbox_id}") if sandbox_id in (A, B) else None

    def state_of(self, sandbox_id: str) -> SandboxStatus | None:
        running = SandboxStatus.RUNNING if sandbox_id in (A, B) else None
        return SandboxStatus.PAUSED if sandbox_id == PAUSED else running

    def previews_of(self, sandbox_id: str) -> PreviewTerms | None:
        return PreviewTerms() if sandbox_id in (A, B, PAUSED) else None


class _Tokens:
    def claims(self, token: str) -> AgentClaims:
        kind, sandbox_id, _ = token.split(".")
        if kind == "ok":
            return AgentClaims(sandbox_id)
        raise error("TOKEN_EXPIRED" if kind == "old" else "UNAUTHORIZED", "No.")

    def preview_claims(self, token: str) -> PreviewClaims:
        raise error("UNAUTHORIZED", "No.")


def route(
    target: str, token: str | None = None, *, host: str = "127.0.0.1:5555", method: str = "GET", **settings: object
) -> Route:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    head = parse_request("\r\n".join(lines).encode())
    return decide(head, GatewaySettings(**settings), _Tokens(), _Directory())  # type: ignore[arg-type]


def refused(routed: Route) -> tuple[int, str]:
    assert isinstance(routed, Refuse), routed
    return routed.status, routed.code


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (f"/sandboxes/{A}/execute", "/execute"),
        (f"/sandboxes/{A}/health", "/health"),
        (f"/sandboxes/{A}/v1/x", "/v1/x"),
        (f"/sandboxes/{A}", "/"),
        (f"/sandboxes/{A}?a=b", "/?a=b"),
        (f"/sandboxes/{A}/files/read?path=/a%2Fb&c=%00..", "/files/read?path=/a%2Fb&c=%00.."),
        (f"/sandboxes/{A}/../{B}/execute", f"/../{B}/execute"),
        (f"/sandboxes/{A}//x", "//x"),
    ],
)
def test_a_path_names_the_sandbox_and_the_rest_is_unchanged(target: str, expected: str) -> None:
    assert route(target, f"ok.{A}.s") == ToAgent(A, Path(f"/run/{A}"), expected.encode())


@pytest.mark.parametrize("target", [f"/sandboxes/{A}/execute", f"/sandboxes/{A}/health", "/execute", "/files/read?x"])
def test_agent_paths_need_a_token(target: str) -> None:
    assert refused(route(target)) == (401, "UNAUTHORIZED")
    assert refused(route(target, "hopx_live_abc.def")) == (401, "UNAUTHORIZED")
    assert refused(route(target, f"bad.{A}.s")) == (401, "UNAUTHORIZED")
    assert refused(route(target, f"old.{A}.s")) == (401, "TOKEN_EXPIRED")


def test_a_token_opens_only_its_own_sandbox() -> None:
    assert refused(route(f"/sandboxes/{B}/execute", f"ok.{A}.s")) == (403, "FORBIDDEN")
    assert refused(route("/execute", f"ok.{A}.s", host=f"7777-{B}.example.org")) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    "target",
    [
        "/sandboxes/xyz/execute",
        f"/sandboxes/{A}x/execute",
        f"/sandboxes/{A.upper()}/execute",
        f"/sandboxes/%31{A[1:]}/execute",
        f"/sandboxes/{A}%2fexecute",
        f"/sandboxes//{A}/execute",
        f"/sandboxes/../sandboxes/{A}/execute",
        "/sandboxes/",
    ],
)
def test_a_path_without_an_exact_id_names_no_sandbox(target: str) -> None:
    assert refused(route(target, f"ok.{A}.s")) == (404, "SANDBOX_NOT_FOUND")


def test_a_dead_sandbox_is_not_found() -> None:
    assert refused(route(f"/sandboxes/{GONE}/execute", f"ok.{GONE}.s")) == (404, "SANDBOX_NOT_FOUND")
    assert refused(route("/execute", f"ok.{GONE}.s")) == (404, "SANDBOX_NOT_FOUND")


def test_a_paused_sandbox_is_refused_at_once_and_the_answer_says_what_to_do() -> None:
    for target in (f"/sandboxes/{PAUSED}/execute", "/execute"):
        routed = route(target, f"ok.{PAUSED}.s")
        assert refused(routed) == (409, "INVALID_STATE")
        assert isinstance(routed, Refuse)
        assert routed.message == f"Sandbox {PAUSED} is paused: resume it first."
        assert "/resume" in routed.remedy
    assert refused(route("/execute", f"old.{PAUSED}.s")) == (401, "TOKEN_EXPIRED")


@pytest.mark.parametrize(
    "target",
    [
        *("/execute", "/execute/stream", "/terminal", "/files/watch", "/health", "/metrics", "/", "/metrics/snapshot"),
        "/x",
    ],
)
def test_without_an_address_the_token_decides(target: str) -> None:
    assert route(target, f"ok.{A}.s") == ToAgent(A, Path(f"/run/{A}"), target.encode())


@pytest.mark.parametrize("target", ["/v1/sandboxes", "/v1", "/docs", "/openapi.json", "/mcp", "/api/v1/x", "/auth/me"])
@pytest.mark.parametrize("token", [None, f"ok.{A}.s", f"old.{A}.s", "hopx_live_abc.def"])
def test_control_plane_paths_stay_there_whatever_the_token(target: str, token: str | None) -> None:
    assert route(target, token) == ToControlPlane(target.encode())


@pytest.mark.parametrize("target", ["/health", "/metrics", "/", "/v1x", "/executed", "/nothing"])
def test_shared_and_unknown_paths_without_an_agent_token_are_the_control_planes(target: str) -> None:
    assert route(target) == ToControlPlane(target.encode())
    assert route(target, "hopx_live_abc.def") == ToControlPlane(target.encode())
    assert route(target, f"old.{A}.s") == ToControlPlane(target.encode())


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/.vms.hopx.dev/execute", "/execute"),
        ("/.vms.hopx.dev", "/"),
        ("/.vms.hopx.dev?a", "/?a"),
        ("/execute", "/execute"),
        ("/v1/sandboxes", "/v1/sandboxes"),
        ("/.vms.hopx.devil", "/.vms.hopx.devil"),
    ],
)
@pytest.mark.parametrize("host", [f"7777-{A}.example.org:8080", f"7777-{A}.EXAMPLE.org.", f"7777-{A.upper()}.x.y"])
def test_a_host_name_names_the_sandbox(target: str, expected: str, host: str) -> None:
    assert route(target, f"ok.{A}.s", host=host) == ToAgent(A, Path(f"/run/{A}"), expected.encode())


def test_a_host_name_does_not_replace_the_token() -> None:
    assert refused(route("/health", host=f"7777-{A}.example.org")) == (401, "UNAUTHORIZED")
    assert refused(route("/v1/sandboxes", host=f"7777-{A}.example.org")) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1", f"x-{A}.evil"]
)
def test_a_foreign_host_name_is_refused(host: str) -> None:
    assert refused(route("/v1/sandboxes", host=host)) == (403, "FORBIDDEN")
    assert isinstance(route("/v1/sandboxes", host=host, allowed_hosts=None), ToControlPlane)
    assert isinstance(route("/v1/sandboxes", host=host, allowed_hosts=frozenset({host})), ToControlPlane)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.8.8:80", "[::1]:5555", "localhost."])
def test_loopback_names_are_served(host: str) -> None:
    assert isinstance(route("/v1/sandboxes", host=host), ToControlPlane)


@pytest.mark.parametrize(("method", "target"), [("CONNECT", "a.example:443"), ("TRACE", "/v1/x"), ("CONNECT", "/x")])
def test_methods_that_are_never_served(method: str, target: str) -> None:
    assert refused(route(target, method=method)) == (405, "METHOD_NOT_ALLOWED")


def test_an_absolute_target_is_normalised_and_its_authority_counts() -> None:
    assert route("http://localhost/v1/x?y", host="evil.example") == ToControlPlane(b"/v1/x?y")
    assert refused(route("http://evil.example/v1/x", host="localhost")) == (403, "FORBIDDEN")
    assert route("*", method="OPTIONS") == ToControlPlane(b"*")


def test_error_bodies_are_hybrids_of_their_plane() -> None:
    routed = route(f"/sandboxes/{GONE}/execute?x", f"ok.{GONE}.s")
    assert isinstance(routed, Refuse)
    body = json.loads(render(routed, new_request_id(), close=False).partition(b"\r\n\r\n")[2])
    assert body["error"] == body["message"]
    assert body["code"] == "SANDBOX_NOT_FOUND"
    assert body["details"] == {}
    assert body["path"] == f"/sandboxes/{GONE}/execute"
    assert body["timestamp"].endswith("Z")
    routed = route("/v1/x", host="evil.example")
    assert isinstance(routed, Refuse)
    head, _, raw = render(routed, b"req_1", close=True).partition(b"\r\n\r\n")
    body = json.loads(raw)
    assert body["error"]["code"] == body["code"] == "FORBIDDEN"
    assert body["error"]["details"] == {}
    assert body["request_id"] == body["error"]["request_id"] == "req_1"
    assert b"X-Request-ID: req_1" in head
    assert b"Connection: close" in head
