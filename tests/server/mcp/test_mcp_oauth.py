"""Access tokens of an authorization server at `/mcp`, with a real one beside."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.server.conftest import Plane
from tests.server.mcp.conftest import plane_with_door
from tests.server.mcp.issuer import Issuer, running_issuer
from tests.server.mcp.mcp_wire import BOTH, initialize, message_of, names_of, request, stateless, tool_call

pytestmark = pytest.mark.anyio

METADATA = "http://127.0.0.1:5555/.well-known/oauth-protected-resource/mcp"


@dataclass
class Guarded:
    """A control plane that takes tokens of an issuer."""

    plane: Plane
    issuer: Issuer

    async def post(self, token: str, path: str = "/mcp", **sent: Any) -> httpx2.Response:
        """A request with a token; the list of tools if nothing else is said."""
        chosen = dict(sent or stateless("tools/list"))
        headers = {**chosen.pop("headers"), "Authorization": f"Bearer {token}"}
        return await self.plane.nobody.post(path, headers=headers, **chosen)


@pytest.fixture(scope="module")
async def guarded() -> AsyncIterator[Guarded]:
    async with running_issuer() as issuer:
        issuer.keys |= {
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
            "short": rsa.generate_private_key(65537, 1024),
        }
        async with plane_with_door(oauth_issuer=issuer.url) as plane:
            yield Guarded(plane, issuer)


@pytest.fixture(scope="module")
def issuer(guarded: Guarded) -> Issuer:
    return guarded.issuer


@pytest.mark.parametrize(("key", "algorithm"), [("rsa", "RS256"), ("rsa", "PS512"), ("ec", "ES256"), ("ed", "EdDSA")])
async def test_tokens_open_it(guarded: Guarded, key: str, algorithm: str) -> None:
    answer = await guarded.post(guarded.issuer.token(key=key, algorithm=algorithm))
    assert answer.status_code == 200, answer.text
    assert "create_sandbox" in names_of(answer)


async def test_the_document_says_who_issues_tokens(guarded: Guarded) -> None:
    for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
        answer = await guarded.plane.nobody.get(path)
        assert answer.status_code == 200
        assert answer.json()["resource"] == "http://127.0.0.1:5555/mcp"
        assert answer.json()["authorization_servers"] == [guarded.issuer.url]
        assert answer.json()["bearer_methods_supported"] == ["header"]
    refused = await guarded.plane.nobody.post("/mcp", **stateless("tools/list"))
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == f'Bearer scope="read exec", resource_metadata="{METADATA}"'


async def test_without_an_issuer_there_is_no_document_and_no_token_is_taken(mcp_plane: Plane, issuer: Issuer) -> None:
    answer = await mcp_plane.nobody.get("/.well-known/oauth-protected-resource/mcp")
    assert answer.status_code == 404
    headers = {"Authorization": f"Bearer {issuer.token()}"}
    refused = await mcp_plane.nobody.post("/mcp", **stateless("tools/list", more=headers))
    assert refused.status_code == 401
    assert "resource_metadata" not in refused.headers["www-authenticate"]


WRONG: dict[str, Callable[[Issuer], str]] = {
    "alg none": Issuer.unsigned,
    "public key as a secret": Issuer.with_hmac_of_public_key,
    "other audience": lambda issuer: issuer.token(aud="https://api.example.com"),
    "audience that only begins the same": lambda issuer: issuer.token(aud="http://127.0.0.1:5555/mcp/other"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "other issuer": lambda issuer: issuer.token(iss="https://evil.example"),
    "issuer with a slash": lambda issuer: issuer.token(iss=issuer.url + "/"),
    "expired": lambda issuer: issuer.token(exp=int(time.time()) - 60),
    "no expiry": lambda issuer: issuer.token(exp=None),
    "expiry that is no time": lambda issuer: issuer.token(exp="soon"),
    "endless expiry": lambda issuer: issuer.token(exp=float("inf")),
    "not yet": lambda issuer: issuer.token(nbf=int(time.time()) + 600),
    "issued in the future": lambda issuer: issuer.token(iat=int(time.time()) + 600),
    "no subject": lambda issuer: issuer.token(sub=None),
    "empty subject": lambda issuer: issuer.token(sub=""),
    "unknown key": lambda issuer: issuer.signed(issuer.claims(), issuer.keys["rsa"], "RS256", {"kid": "gone"}),
    "no key named": lambda issuer: issuer.signed(issuer.claims(), issuer.keys["rsa"], "RS256", {}),
    "somebody else's key": lambda issuer: issuer.signed(
        issuer.claims(), rsa.generate_private_key(65537, 2048), "RS256", {"kid": "rsa"}
    ),
    "key of another kind": lambda issuer: issuer.signed(issuer.claims(), issuer.keys["ec"], "ES256", {"kid": "rsa"}),
    "short key": lambda issuer: issuer.token(key="short"),
    "no access token": lambda issuer: issuer.signed(
        issuer.claims(), issuer.keys["rsa"], "RS256", {"kid": "rsa", "typ": "logout+jwt"}
    ),
    "critical header": lambda issuer: issuer.signed(
        issuer.claims(), issuer.keys["rsa"], "RS256", {"kid": "rsa", "crit": ["exp"]}
    ),
    "bound to a key": lambda issuer: issuer.token(cnf={"jkt": "x"}),
    "namespace that is none": lambda issuer: issuer.token(cove_namespace="a/b"),
    "every namespace": lambda issuer: issuer.token(cove_namespace="*"),
    "changed": lambda issuer: issuer.token()[:-4] + "AAAA",
    "huge": lambda issuer: issuer.token(filling="x" * 20_000),
    "rubbish": lambda issuer: "eyJ.eyJ.eyJ",
    "own words": lambda issuer: "eyJ" + "/" * 2000 + "..",
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_tokens_that_are_not_in_order_are_refused(guarded: Guarded, wrong: str) -> None:
    answer = await guarded.post(WRONG[wrong](guarded.issuer))
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].startswith("Bearer scope=")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_tokens_open_nothing_else(guarded: Guarded) -> None:
    token = guarded.issuer.token(scope="read exec admin")
    for path in ("/v1/sandboxes", "/auth/api-keys", "/metrics"):
        answer = await guarded.plane.nobody.get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
    assert (await guarded.plane.nobody.post(f"/mcp?access_token={token}", **stateless("tools/list"))).status_code == 401


@pytest.mark.parametrize(
    "claims",
    [{"scope": "openid sandbox:read"}, {"scope": None, "scp": ["read"]}, {"scope": None, "scp": "read profile"}],
)
async def test_scopes_come_in_several_ways(guarded: Guarded, claims: dict[str, Any]) -> None:
    names = names_of(await guarded.post(guarded.issuer.token(**claims)))
    assert "list_sandboxes" in names
    assert "create_sandbox" not in names


async def test_what_a_token_does_not_allow_asks_for_another_one(guarded: Guarded) -> None:
    reader = guarded.issuer.token(scope="read")
    refused = await guarded.post(reader, **tool_call("create_sandbox"))
    assert refused.status_code == 403
    challenge = f'Bearer error="insufficient_scope", scope="exec", resource_metadata="{METADATA}"'
    assert refused.headers["www-authenticate"] == challenge

    opened = await guarded.post(reader, json=initialize(), headers={"Accept": BOTH})
    session = {"Accept": BOTH, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
    called = request("tools/call", {"name": "create_sandbox", "arguments": {}})
    assert (await guarded.post(reader, json=called, headers=session)).status_code == 403
    writer = guarded.issuer.token(scope="read exec")
    assert (await guarded.post(writer, json=called, headers=session)).status_code == 404

    nothing = await guarded.post(guarded.issuer.token(scope="openid"))
    assert nothing.status_code == 403
    assert 'error="insufficient_scope"' in nothing.headers["www-authenticate"]


async def test_everybody_has_a_namespace(guarded: Guarded) -> None:
    async def created(**claims: Any) -> str:
        answer = await guarded.post(guarded.issuer.token(**claims), **tool_call("create_sandbox"))
        return message_of(answer)["result"]["structuredContent"]["id"]

    async def seen(**claims: Any) -> str:
        answer = await guarded.post(guarded.issuer.token(**claims), **tool_call("list_sandboxes"))
        return answer.text

    own, other, team = await created(sub="ann"), await created(sub="böb"), await created(cove_namespace="team-a")
    assert own in await seen(sub="ann")
    assert other not in await seen(sub="ann")
    assert other in await seen(sub="böb")
    assert team in await seen(sub="eve", cove_namespace="team-a")
    assert team not in await seen(sub="eve")
    rows = await guarded.plane.control.store.read(lambda work: [work.sandboxes.get(one) for one in (own, other, team)])
    names = [row.namespace for row in rows if row]
    assert names[2] == "team-a"
    assert all(len(name) == 26 and name.startswith("u-") for name in names[:2])


async def test_keys_go_on_working_beside(guarded: Guarded) -> None:
    assert (await guarded.plane.client.post("/mcp", **stateless("tools/list"))).status_code == 200


async def test_a_new_key_of_the_issuer_is_found(guarded: Guarded) -> None:
    async with running_issuer() as issuer, plane_with_door(oauth_issuer=issuer.url) as plane:
        fresh = Guarded(plane, issuer)
        issuer.keys["second"] = rsa.generate_private_key(65537, 2048)
        assert (await fresh.post(issuer.token(key="second"))).status_code == 200
        for name in ("third", "fourth"):
            stranger = issuer.signed(issuer.claims(), issuer.keys["rsa"], "RS256", {"kid": name})
            assert (await fresh.post(stranger)).status_code == 401
        assert issuer.asked == ["/.well-known/oauth-authorization-server", "/keys"]


async def test_an_issuer_that_cannot_be_asked_is_no_fault_of_the_token() -> None:
    async with running_issuer() as issuer, plane_with_door(oauth_issuer=issuer.url) as plane:
        issuer.failing = True
        answer = await Guarded(plane, issuer).post(issuer.token())
        assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (503, "HOST_UNAVAILABLE")


@pytest.mark.parametrize("change", [{"issuer": "https://evil.example"}, {"jwks_uri": "http://192.0.2.1/keys"}, {}])
async def test_what_the_issuer_says_of_itself_is_checked(change: dict[str, str]) -> None:
    async with running_issuer() as issuer, plane_with_door(oauth_issuer=issuer.url) as plane:
        issuer.metadata |= change
        if not change:
            issuer.padding = "x" * (600 * 1024)
        answer = await Guarded(plane, issuer).post(issuer.token())
        assert answer.status_code == 503


async def test_the_audience_is_a_setting() -> None:
    async with running_issuer() as issuer, plane_with_door(oauth_issuer=issuer.url, oauth_audience="cove") as plane:
        guarded = Guarded(plane, issuer)
        assert (await guarded.post(issuer.token(aud=["other", "cove"]))).status_code == 200
        assert (await guarded.post(issuer.token())).status_code == 401
