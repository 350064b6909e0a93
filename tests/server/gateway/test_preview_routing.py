"""Which requests reach which ports of which sandboxes."""

from pathlib import Path
from typing import Any

import pytest

from cove.core.tokens import AgentClaims, PreviewClaims
from cove.models.errors import error
from cove.models.previews import PreviewTerms
from cove.models.sandboxes import SandboxStatus
from cove.server.gateway.heads import parse_request
from cove.server.gateway.passage import below, without_domain
from cove.server.gateway.refusals import Refuse
from cove.server.gateway.routing import Route, ToAgent, ToControlPlane, ToPort, decide
from cove.server.gateway.settings import GatewaySettings

A = "1763382095aaaaaaaa"
PAUSED = "1763382095bbbbbbbb"
GONE = "1763382095cccccccc"
DOMAIN = "boxes.example.org"
SOCKET = Path(f"/run/{A}")
KEY = "hopx_live_abcdefghijkl.mnop"
DELEGATED = "cove_delegated_abc.def"
MICROSANDBOX = "msb_header.claims.signature"


class _Directory:
    def socket_of(self, sandbox_id: str) -> Path | None:
        return SOCKET if sandbox_id == A else None

    def state_of(self, sandbox_id: str) -> SandboxStatus | None:
        return {A: SandboxStatus.RUNNING, PAUSED: SandboxStatus.PAUSED}.get(sandbox_id)

    def previews_of(self, sandbox_id: str) -> PreviewTerms | None:
        return PreviewTerms() if sandbox_id in (A, PAUSED) else None


class _Tokens:
    def claims(self, token: str) -> AgentClaims:
        kind, sandbox_id, _ = token.split(".")
        if kind == "ok":
            return AgentClaims(sandbox_id)
        raise error("TOKEN_EXPIRED" if kind == "old" else "UNAUTHORIZED", "No.")

    def preview_claims(self, token: str) -> PreviewClaims:
        raise error("UNAUTHORIZED", "No.")


def route(target: str, *fields: str, host: str = "127.0.0.1:5555", method: str = "GET", **settings: Any) -> Route:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    head = parse_request("\r\n".join(lines).encode())
    chosen: dict[str, Any] = {"domain": DOMAIN, **settings}
    return decide(head, GatewaySettings(**chosen), _Tokens(), _Directory())


def refused(routed: Route) -> tuple[int, str]:
    assert isinstance(routed, Refuse), routed
    return routed.status, routed.code


@pytest.mark.parametrize(
    "host",
    [
        f"3000-{A}.{DOMAIN}",
        f"3000-{A}.{DOMAIN}:8443",
        f"3000-{A}.{DOMAIN}.",
        f"3000-{A.upper()}.{DOMAIN.upper()}",
        f"3000-{A}.{DOMAIN}.:8443",
    ],
)
def test_a_host_name_is_the_address_of_a_port(host: str) -> None:
    assert route("/x?y", host=host) == ToPort(A, SOCKET, 3000, b"/x?y")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/.vms.hopx.dev", "/"),
        ("/.vms.hopx.dev/", "/"),
        ("/.vms.hopx.dev/a/b?c", "/a/b?c"),
        ("/.vms.hopx.dev?c", "/?c"),
        ("/.vms.hopx.devil", "/.vms.hopx.devil"),
        ("/v1/sandboxes", "/v1/sandboxes"),
        ("/sandboxes/x", "/sandboxes/x"),
        ("//evil/..", "//evil/.."),
    ],
)
def test_the_path_that_hopx_clients_add_is_taken_off(target: str, expected: str) -> None:
    assert route(target, host=f"3000-{A}.{DOMAIN}") == ToPort(A, SOCKET, 3000, expected.encode())


@pytest.mark.parametrize(
    "host",
    [
        f"0-{A}.{DOMAIN}",
        f"65536-{A}.{DOMAIN}",
        f"99999-{A}.{DOMAIN}",
        f"100000-{A}.{DOMAIN}",
        f"03000-{A}.{DOMAIN}",
        f"07777-{A}.{DOMAIN}",
        f"3000-{A}x.{DOMAIN}",
        f"3000-{A}.x.{DOMAIN}",
        f"3000--{A}.{DOMAIN}",
        f"3000-3000-{A}.{DOMAIN}",
        f"{A}.{DOMAIN}",
    ],
)
def test_names_that_are_no_address_lead_nowhere(host: str) -> None:
    for allowed in (frozenset[str](), None):
        assert refused(route("/", host=host, allowed_hosts=allowed)) == (404, "SANDBOX_NOT_FOUND")


@pytest.mark.parametrize(
    "host",
    [
        f"3000-{A}.evil.example",
        f"3000-{A}.{DOMAIN}.evil.example",
        f"3000-{A}.evil{DOMAIN}",
        f"3000-{A}",
        f"3000-{A}.127.0.0.1",
        f"3000-{A}.localhost",
        f"7777-{A}.evil.example",
    ],
)
def test_names_below_another_domain_are_foreign(host: str) -> None:
    assert refused(route("/", f"Authorization: Bearer ok.{A}.s", host=host)) == (403, "FORBIDDEN")


@pytest.mark.parametrize("host", [f"3000-{A}.{DOMAIN}", f"3000-{A}.evil.example"])
@pytest.mark.parametrize("allowed", [frozenset[str](), None])
def test_without_a_domain_no_name_is_the_address_of_a_program(host: str, allowed: frozenset[str] | None) -> None:
    assert refused(route("/", host=host, domain=None, allowed_hosts=allowed)) == (403, "FORBIDDEN")


def test_a_path_is_the_address_of_a_port() -> None:
    prefix = f"/sandboxes/{A}/ports/3000".encode()
    assert route(f"/sandboxes/{A}/ports/3000/x/y?z") == ToPort(A, SOCKET, 3000, b"/x/y?z", prefix)
    assert route(f"/sandboxes/{A}/ports/3000/") == ToPort(A, SOCKET, 3000, b"/", prefix)
    assert route(f"/sandboxes/{A}/ports/3000", method="POST") == ToPort(A, SOCKET, 3000, b"/", prefix)
    assert route(f"/sandboxes/{A}/ports/65535/../1/") == ToPort(A, SOCKET, 65535, b"/../1/", prefix[:-4] + b"65535")


def test_a_path_without_its_slash_is_sent_to_the_one_with_it() -> None:
    routed = route(f"/sandboxes/{A}/ports/3000?a=b")
    assert isinstance(routed, Refuse)
    assert (routed.status, routed.location) == (308, f"/sandboxes/{A}/ports/3000/?a=b")


@pytest.mark.parametrize("port", ["0", "00", "03000", "65536", "99999", "100000", "x", "-1", "3000x", "%33000", ""])
def test_paths_with_no_port_are_refused(port: str) -> None:
    assert refused(route(f"/sandboxes/{A}/ports/{port}/x")) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("target", ["/health", "/ports/3000/socket", "/.vms.hopx.dev/execute"])
def test_the_agents_port_is_open_with_its_token_only(target: str) -> None:
    by_path = f"/sandboxes/{A}/ports/7777{target}"
    host = f"7777-{A}.{DOMAIN}"
    assert refused(route(target, host=host)) == refused(route(by_path)) == (401, "UNAUTHORIZED")
    other, own = f"Authorization: Bearer ok.{PAUSED}.s", f"Authorization: Bearer ok.{A}.s"
    assert refused(route(target, other, host=host)) == refused(route(by_path, other)) == (403, "FORBIDDEN")
    assert isinstance(route(target, own, host=host), ToAgent)
    assert isinstance(route(by_path, own), ToAgent)


def test_sandboxes_that_do_not_run() -> None:
    for sandbox_id, expected in ((GONE, (404, "SANDBOX_NOT_FOUND")), (PAUSED, (409, "INVALID_STATE"))):
        assert refused(route("/", host=f"3000-{sandbox_id}.{DOMAIN}")) == expected
        assert refused(route(f"/sandboxes/{sandbox_id}/ports/3000/")) == expected


def test_previews_may_need_the_token() -> None:
    own, other = f"Authorization: Bearer ok.{A}.s", f"Authorization: Bearer ok.{GONE}.s"
    for target, host in (("/", f"3000-{A}.{DOMAIN}"), (f"/sandboxes/{A}/ports/3000/", "localhost")):
        gone = (target.replace(A, GONE), host.replace(A, GONE))
        for fields, expected in (((), (401, "UNAUTHORIZED")), (("Authorization: Basic eDp5",), (401, "UNAUTHORIZED"))):
            assert refused(route(target, *fields, host=host, previews_need_token=True)) == expected
            assert refused(route(gone[0], *fields, host=gone[1], previews_need_token=True)) == expected
        assert refused(route(target, other, host=host, previews_need_token=True)) == (403, "FORBIDDEN")
        assert refused(route(gone[0], own, host=gone[1], previews_need_token=True)) == (403, "FORBIDDEN")
        routed = route(target, own, host=host, previews_need_token=True)
        assert isinstance(routed, ToPort)
        assert routed.withheld == {b"authorization"}


@pytest.mark.parametrize(
    ("fields", "withheld"),
    [
        ([], set[bytes]()),
        (["Authorization: Basic eDp5", "X-API-Key: of-the-program"], set[bytes]()),
        (["Authorization: Bearer of-the-program"], set[bytes]()),
        (["Authorization: Bearer bad.jwt.sig"], set[bytes]()),
        ([f"Authorization: Bearer ok.{A}.s"], {b"authorization"}),
        ([f"Authorization: bearer  ok.{GONE}.s"], {b"authorization"}),
        ([f"Authorization: Bearer old.{A}.s"], {b"authorization"}),
        ([f"Authorization: Bearer {KEY}"], {b"authorization"}),
        ([f"X-API-Key: {KEY}"], {b"x-api-key"}),
        ([f"X-API-Key: {DELEGATED}", f"Authorization: {MICROSANDBOX}"], {b"x-api-key", b"authorization"}),
        ([f"Authorization: Bearer {MICROSANDBOX}"], {b"authorization"}),
        (["x-api-key: other", f"X-Api-Key: {KEY}", "Authorization: Basic eDp5"], {b"x-api-key"}),
    ],
)
def test_credentials_of_this_server_are_not_for_programs(fields: list[str], withheld: set[bytes]) -> None:
    routed = route("/", *fields, host=f"3000-{A}.{DOMAIN}")
    assert isinstance(routed, ToPort)
    assert routed.withheld == withheld


def test_other_names_are_the_servers() -> None:
    for host in (DOMAIN, f"api.{DOMAIN}", "api.hopx.dev"):
        assert isinstance(route("/v1/x", host=host, allowed_hosts=frozenset({host})), ToControlPlane)
        assert refused(route("/v1/x", host=host)) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("a=b", "a=b"),
        ("a=b; Domain=example.org; Path=/", "a=b; Path=/"),
        ("a=b;domain=.example.org", "a=b"),
        ("a=b; \tDOMAIN \t= example.org;Secure", "a=b;Secure"),
        ("a=b; domain", "a=b"),
        ("domain=b; Domain=x; domain=y", "domain=b"),
        ("a=b; xdomain=c", "a=b; xdomain=c"),
    ],
)
def test_cookies_are_for_one_host(cookie: str, expected: str) -> None:
    assert without_domain(cookie.encode()) == expected.encode()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/login", "/p/login"),
        ("/", "/p/"),
        ("/p/login", "/p/login"),
        ("/p", "/p"),
        ("/pp", "/p/pp"),
        ("//evil.example/x", "//evil.example/x"),
        ("/\\evil.example", "/\\evil.example"),
        ("login?next=/", "login?next=/"),
        ("https://h:1/login", "https://h:1/p/login"),
        ("http://h:1/p/x", "http://h:1/p/x"),
        ("http://h:12/x", "http://h:12/x"),
        ("https://other.example/x", "https://other.example/x"),
        ("", ""),
    ],
)
def test_redirects_stay_below_the_address(location: str, expected: str) -> None:
    assert below(b"/p", location.encode(), b"h:1") == expected.encode()
