"""Links to previews that are not public: whom they let in, where, and for how long."""

import base64
import json
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cove.core.tokens import AgentTokens
from cove.models.errors import CoveError
from cove.models.previews import PreviewAccess, PreviewTerms
from cove.models.sandboxes import SandboxStatus
from cove.server.gateway.heads import parse_request
from cove.server.gateway.refusals import Refuse, render
from cove.server.gateway.routing import Route, ToPort, decide
from cove.server.gateway.settings import GatewaySettings
from cove.server.gateway.visitors import sets_token

A = "1763382095aaaaaaaa"
B = "1763382095bbbbbbbb"
GONE = "1763382095cccccccc"
DOMAIN = "boxes.example.org"
HOST = f"3000-{A}.{DOMAIN}"
PATH = f"/sandboxes/{A}/ports/3000"
KEY: Final = Ed25519PrivateKey.generate()
NOW = 1_800_000_000
PAGE = "Accept: text/html,*/*;q=0.8"


class _Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class _Directory:
    def __init__(self) -> None:
        self.terms = {A: PreviewTerms(PreviewAccess.TOKEN, 2), B: PreviewTerms(PreviewAccess.TOKEN, 2)}

    def socket_of(self, sandbox_id: str) -> Path | None:
        return Path("/run/x") if sandbox_id in self.terms else None

    def state_of(self, sandbox_id: str) -> SandboxStatus | None:
        return SandboxStatus.RUNNING if sandbox_id in self.terms else None

    def previews_of(self, sandbox_id: str) -> PreviewTerms | None:
        return self.terms.get(sandbox_id)


class World:
    """Sandboxes whose previews need a token, and what this server signs."""

    def __init__(self) -> None:
        self.clock = _Clock()
        self.tokens = AgentTokens(KEY, clock=self.clock)
        self.directory = _Directory()

    def link(self, sandbox_id: str = A, port: int = 3000, *, epoch: int = 2, seconds: int = 60) -> str:
        return self.tokens.issue_preview(sandbox_id, port, epoch=epoch, expires_at=NOW + seconds)

    def ask(
        self, target: str, *fields: str, host: str = HOST, method: str = "GET", secure: bool = False, **settings: Any
    ) -> Route:
        head = parse_request("\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]).encode())
        chosen: dict[str, Any] = {"domain": DOMAIN, **settings}
        return decide(head, GatewaySettings(**chosen), self.tokens, self.directory, secure=secure)


@pytest.fixture
def world() -> World:
    return World()


def field(token: str) -> str:
    return f"X-Cove-Preview-Token: {token}"


def cookie(token: str, name: str = "cove-preview") -> str:
    return f"Cookie: a=1; {name}={token}; b=2"


def let_in(routed: Route) -> ToPort:
    assert isinstance(routed, ToPort), routed
    return routed


def refused(routed: Route) -> tuple[int, str]:
    assert isinstance(routed, Refuse), routed
    return routed.status, routed.code


def exchanged(routed: Route) -> tuple[str, str]:
    """Where the client is sent, and what it is told to keep."""
    assert isinstance(routed, Refuse), routed
    assert routed.status == 303
    return routed.location, routed.cookie


def test_whoever_has_nothing_is_told_how_to_get_in(world: World) -> None:
    for target, host in (("/x", HOST), (f"{PATH}/x", "localhost")):
        for fields in ((), ("Authorization: Basic eDp5",), ("Cookie: session=1",), (cookie("x.y.z"),), (field(""),)):
            routed = world.ask(target, *fields, host=host)
            assert refused(routed) == (401, "UNAUTHORIZED")
            assert isinstance(routed, Refuse)
            assert "/previews" in routed.remedy
    page = render(routed, b"req_1", close=False, as_page=True)
    assert b"cove sandboxes preview" in page
    assert b"http" not in page.partition(b"\r\n\r\n")[2]


def test_a_sandbox_says_who_may_see_it_and_otherwise_the_server_does(world: World) -> None:
    for access, needed, expected in (
        (None, False, True),
        (None, True, False),
        (PreviewAccess.PUBLIC, True, True),
        (PreviewAccess.TOKEN, False, False),
    ):
        world.directory.terms[A] = PreviewTerms(access, 2)
        assert isinstance(world.ask("/", previews_need_token=needed), ToPort) is expected
    assert refused(world.ask("/", host=f"3000-{GONE}.{DOMAIN}")) == (404, "SANDBOX_NOT_FOUND")
    assert refused(world.ask("/", host=f"3000-{GONE}.{DOMAIN}", previews_need_token=True)) == (401, "UNAUTHORIZED")


def test_a_browser_exchanges_the_link_for_a_cookie(world: World) -> None:
    token = world.link()
    for secure, name in ((False, "cove-preview"), (True, "__Host-cove-preview")):
        routed = world.ask(f"/app?x=1&cove_preview_token={token}&y=2", PAGE, secure=secure)
        location, kept = exchanged(routed)
        assert location == "/app?x=1&y=2"
        ends = "HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        assert kept == f"{name}={token}; Path=/; Expires=Fri, 15 Jan 2027 08:01:00 GMT; {ends}"
        answered = let_in(world.ask("/app?x=1&y=2", cookie(token, name), secure=secure))
        assert (answered.withheld, answered.added) == ({b"cookie"}, (b"Cookie: a=1; b=2",))
    assert isinstance(routed, Refuse)
    raw = render(routed, b"req_1", close=False, as_page=True)
    assert b"\r\nReferrer-Policy: no-referrer\r\n" in raw
    assert raw.count(token.encode()) == 1  # in the cookie alone


def test_at_a_path_the_cookie_is_for_that_path(world: World) -> None:
    token = world.link()
    location, kept = exchanged(world.ask(f"{PATH}/?cove_preview_token={token}", PAGE, host="localhost", secure=True))
    assert location == f"{PATH}/"
    assert kept.startswith(f"__Secure-cove-preview={token}; Path={PATH}; ")
    answered = let_in(world.ask(f"{PATH}/", cookie(token, "__Secure-cove-preview"), host="localhost"))
    assert answered.added == ()


def test_other_clients_are_answered_at_once(world: World) -> None:
    token = world.link()
    for target, fields, withheld in (
        (f"/a?cove_preview_token={token}", ("Accept: */*",), set[bytes]()),
        ("/a", (field(token), "Authorization: Bearer of.its.own"), {b"x-cove-preview-token"}),
        ("/a", (f"Authorization: Bearer {world.tokens.issue(A).auth_token}",), {b"authorization"}),
    ):
        for method in ("GET", "POST", "DELETE"):
            answered = let_in(world.ask(target, *fields, method=method))
            assert (answered.target, answered.withheld) == (b"/a", withheld)
    shaking = ("Connection: Upgrade", "Upgrade: websocket", PAGE)
    assert let_in(world.ask(f"/ws?cove_preview_token={token}&a", *shaking)).target == b"/ws?a"


def test_a_link_is_for_one_port_of_one_sandbox(world: World) -> None:
    for token in (world.link(port=3001), world.link(B)):
        for routed in (
            world.ask(f"/?cove_preview_token={token}", PAGE),
            world.ask(f"/?cove_preview_token={token}"),
            world.ask("/", field(token)),
            world.ask("/", cookie(token)),
            world.ask(f"{PATH}/", cookie(token), host="localhost"),
            world.ask(f"{PATH}/../3001/", cookie(token), host="localhost"),
        ):
            assert refused(routed) == (403, "FORBIDDEN")


def test_a_link_ends(world: World) -> None:
    token = world.link(seconds=60)
    world.clock.now += 59
    let_in(world.ask("/", cookie(token)))
    world.clock.now += 1
    for routed in (world.ask("/", cookie(token)), world.ask(f"/?cove_preview_token={token}", PAGE)):
        assert refused(routed) == (401, "TOKEN_EXPIRED")


def test_revoked_links_and_those_of_ended_sandboxes_open_nothing(world: World) -> None:
    assert refused(world.ask("/", cookie(world.link(epoch=1)))) == (401, "TOKEN_EXPIRED")
    token = world.link(GONE)
    for fields in ((PAGE,), ()):
        for needed in (False, True):
            routed = world.ask(
                f"/?cove_preview_token={token}", *fields, host=f"3000-{GONE}.{DOMAIN}", previews_need_token=needed
            )
            assert refused(routed) == (404, "SANDBOX_NOT_FOUND")


def test_agents_and_links_have_tokens_of_their_own(world: World) -> None:
    agent = world.tokens.issue(A).auth_token
    assert refused(world.ask("/", field(agent))) == (401, "UNAUTHORIZED")
    assert refused(world.ask("/", cookie(agent))) == (401, "UNAUTHORIZED")
    bearer = f"Authorization: Bearer {world.link(port=7777)}"
    assert refused(world.ask("/health", bearer, host=f"7777-{A}.{DOMAIN}")) == (401, "UNAUTHORIZED")
    assert refused(world.ask(f"/sandboxes/{A}/health", bearer, host="localhost")) == (401, "UNAUTHORIZED")
    assert refused(world.ask("/execute", bearer, host="localhost", method="POST")) == (401, "UNAUTHORIZED")


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_forged_tokens_are_refused(world: World) -> None:
    head, claims, signature = world.link(port=3001).split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    wanted = {**said, "port": 3000}
    genuine = world.link()
    public = KEY.public_key().public_bytes_raw()
    for token in (
        f"{head}.{_part(wanted)}.{signature}",
        f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(wanted)}.",
        f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(wanted)}.{signature}",
        jwt.encode(wanted, public, algorithm="HS256"),
        jwt.encode(wanted, Ed25519PrivateKey.generate(), algorithm="EdDSA"),
        jwt.encode({**wanted, "port": "3000"}, KEY, algorithm="EdDSA"),
        jwt.encode({**wanted, "exp": "x"}, KEY, algorithm="EdDSA"),
        # The library would skip such characters, and they would end up in Set-Cookie.
        f"{genuine};Domain={DOMAIN}",
        f"{genuine}==",
    ):
        with pytest.raises(CoveError, match="not valid"):
            world.tokens.preview_claims(token)
        assert refused(world.ask("/", field(token))) == (401, "UNAUTHORIZED")
        assert refused(world.ask(f"/?cove_preview_token={token}", PAGE)) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example/x", "///evil.example/x", "/\\/evil.example/x"])
def test_the_exchange_leads_nowhere_else(world: World, path: str) -> None:
    token = world.link()
    location, _ = exchanged(world.ask(f"{path}?cove_preview_token={token}", PAGE))
    assert location == "/evil.example/x"
    below, _ = exchanged(world.ask(f"{PATH}{path}?cove_preview_token={token}", PAGE, host="localhost"))
    assert below == PATH + path


def test_public_previews_hide_tokens_too(world: World) -> None:
    world.directory.terms[A] = PreviewTerms(PreviewAccess.PUBLIC, 2)
    token = world.link()
    assert exchanged(world.ask(f"/?cove_preview_token={token}", PAGE))[1].startswith("cove-preview=")
    assert exchanged(world.ask("/x?cove_preview_token=of.no.use", PAGE)) == ("/x", "")
    referer = f"Referer: https://{HOST}/?cove_preview_token={token}"
    answered = let_in(world.ask(f"/?cove_preview_token={token}", field(token), cookie(token), referer))
    assert answered.target == b"/"
    assert answered.withheld == {b"x-cove-preview-token", b"cookie", b"referer"}
    assert token.encode() not in b"".join(answered.added)


def test_an_old_link_does_not_replace_a_cookie_that_is_good(world: World) -> None:
    stale, good = world.link(seconds=-1), world.link()
    assert exchanged(world.ask(f"/?cove_preview_token={stale}", PAGE, cookie(good))) == ("/", "")


def test_pages_of_others_cannot_use_a_visitors_cookie(world: World) -> None:
    token, shaking = world.link(), ("Connection: Upgrade", "Upgrade: websocket")
    own, sibling = f"Origin: http://{HOST}", f"Origin: http://3000-{B}.{DOMAIN}"
    let_in(world.ask("/ws", cookie(token), own, *shaking))
    let_in(world.ask("/api", cookie(token), own, "Sec-Fetch-Site: same-origin", method="POST"))
    let_in(world.ask("/", cookie(token), "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"))
    for fields, method in (
        ((sibling, *shaking), "GET"),
        (("Origin: null", *shaking), "GET"),
        ((sibling,), "POST"),
        ((own, sibling), "POST"),
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"), "GET"),
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate"), "POST"),
    ):
        assert refused(world.ask("/x", cookie(token), *fields, method=method)) == (403, "FORBIDDEN")
    let_in(world.ask("/x", field(token), sibling, method="POST"))


def test_what_others_put_into_the_cookie_jar_does_no_harm(world: World) -> None:
    token = world.link()
    tossed = "cove-preview=x; cove-preview=" + world.link(B)
    let_in(world.ask("/", f"Cookie: {tossed}; __Host-cove-preview={token}"))
    many = "; ".join(["cove-preview=a.b.c"] * 50)
    assert refused(world.ask("/", f"Cookie: {many}")) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cove-preview=x", True),
        ("__Host-cove-preview=x; Path=/; Secure", True),
        ("__secure-COVE-preview =x", True),
        (" cove-preview", True),
        ("=cove-preview=x", True),
        ("cove-previews=x", False),
        ("my-cove-preview=x", False),
        ("session=cove-preview=x", False),
    ],
)
def test_programs_cannot_set_the_cookie(value: str, expected: bool) -> None:
    assert sets_token(value.encode()) is expected
