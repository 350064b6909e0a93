"""The account plane: keys, organization, profile, usage; and that no key sees another namespace through it."""

import asyncio
import re
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.core.world import Clock
from tests.server.conftest import Plane, Running

from cove.core.sessions import ACCESS_SECONDS, REFRESH_SECONDS, Sessions
from cove.core.tokens import AgentTokens
from cove.models.errors import CoveError
from cove.models.quotas import Quota

pytestmark = pytest.mark.anyio

CODE = {"template_name": "code-interpreter"}
FULL_KEY = re.compile(r"hopx_live_[A-Za-z0-9]{12}\.[A-Za-z0-9_-]{43}")


async def got(client: httpx2.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def key_client(plane: Plane, running: Running, **options: Any) -> httpx2.AsyncClient:
    made = await plane.control.keys.create("made", **options)
    return running.client(plane.socket, {"X-API-Key": made.key})


async def test_keys_from_creation_to_revocation(plane: Plane, running: Running) -> None:
    made = (await plane.client.post("/auth/api-keys", json={"name": "ci", "expires_in": "1month"})).json()
    assert (made["success"], made["api_key"]["name"], made["api_key"]["status"]) == (True, "ci", "active")
    assert FULL_KEY.fullmatch(made["full_key"])
    key_id = made["api_key"]["id"]
    listed = await plane.client.get("/auth/api-keys")
    assert made["full_key"] not in listed.text
    assert listed.json()["count"] == 2
    entry = next(each for each in listed.json()["api_keys"] if each["id"] == key_id)
    assert entry["prefix"] in made["full_key"]
    for name in ("id", "key_id", "name", "prefix", "masked_key", "status", "created_at", "expires_at"):
        assert isinstance(entry[name], str)
    assert entry["last_used_at"] is None
    client = running.client(plane.socket, {"Authorization": f"Bearer {made['full_key']}"})
    assert (await client.get("/v1/sandboxes")).status_code == 200
    assert (await got(plane.client, f"/auth/api-keys/{key_id}"))["api_key"]["id"] == key_id
    revoked = await plane.client.delete(f"/auth/api-keys/{key_id}")
    assert (revoked.status_code, revoked.json()["success"]) == (200, True)
    assert (await client.get("/v1/sandboxes")).status_code == 401
    assert (await plane.client.delete(f"/auth/api-keys/{key_id}")).status_code == 404
    assert (await got(plane.client, f"/auth/api-keys/{key_id}"))["api_key"]["status"] == "revoked"
    assert (await got(plane.client, "/auth/api-keys"))["count"] == 1
    events = await plane.control.store.read(lambda work: work.events.recent(namespace="default"))
    mine = (await got(plane.client, "/auth/me"))["user_id"]
    made_and_revoked = [(each.action, each.actor) for each in events if each.action.startswith("key.")]
    assert made_and_revoked[:2] == [("key.revoked", mine), ("key.created", mine)]


@pytest.mark.parametrize(
    ("expires_in", "days"), [("1month", 30), ("3months", 91), ("6months", 183), ("1year", 365), ("never", None)]
)
async def test_lifetimes_of_keys(plane: Plane, expires_in: str, days: int | None) -> None:
    made = (await plane.client.post("/auth/api-keys", json={"name": "k", "expires_in": expires_in})).json()
    stored = await plane.control.store.read(lambda work: work.keys.get(made["api_key"]["id"]))
    assert stored is not None
    lifetime = None if stored.expires_at is None else stored.expires_at - stored.created_at
    assert lifetime == (None if days is None else days * 86400)


async def test_a_body_decides_nothing_but_name_and_expiry(plane: Plane) -> None:
    extra = {"name": "k", "namespace": "other", "id": "x" * 12, "quota": {"max_sandboxes": 9}, "expires_at": None}
    made = (await plane.client.post("/auth/api-keys", json=extra)).json()
    stored = await plane.control.store.read(lambda work: work.keys.get(made["api_key"]["id"]))
    assert stored is not None
    assert (stored.namespace, stored.quota.is_open, stored.id == "x" * 12) == ("default", True, False)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": " "},
        {"name": "a\nb"},
        {"name": "x" * 201},
        {"name": 7},
        {"name": "k", "expires_in": "2days"},
        {"name": "k", "expires_in": None},
        [],
        "k",
    ],
)
async def test_bad_keys_are_refused(plane: Plane, body: Any) -> None:
    answer = await plane.client.post("/auth/api-keys", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"] is not None
    assert (await got(plane.client, "/auth/api-keys"))["count"] == 1


async def test_keys_of_a_namespace_are_not_without_number(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cove.core.accounts.MAX_KEYS", 3)
    answers = await asyncio.gather(*(plane.client.post("/auth/api-keys", json={"name": "k"}) for _ in range(6)))
    assert sorted(each.status_code for each in answers) == [200, 200, 403, 403, 403, 403]
    assert (await plane.stranger.post("/auth/api-keys", json={"name": "k"})).status_code == 200


async def test_strangers_see_and_change_nothing(plane: Plane) -> None:
    mine = (await got(plane.client, "/auth/api-keys"))["api_keys"][0]
    theirs = (await got(plane.stranger, "/auth/api-keys"))["api_keys"][0]
    await plane.client.post("/v1/sandboxes", json=CODE)
    for answer in (
        await plane.stranger.get(f"/auth/api-keys/{mine['id']}"),
        await plane.stranger.delete(f"/auth/api-keys/{mine['id']}"),
        await plane.stranger.delete(f"/auth/api-keys/{mine['name']}"),
        await plane.stranger.delete(f"/auth/members/{mine['id']}"),
        await plane.stranger.get("/auth/api-keys/nonsense"),
        await plane.stranger.post("/auth/organization/switch", json={"organization_id": 1}),
        await plane.stranger.post("/auth/organization/switch", json={"organization_id": 999}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "RESOURCE_NOT_FOUND")
        assert "default" not in answer.text
    assert [each["id"] for each in (await got(plane.stranger, "/auth/members"))["data"]] == [theirs["id"]]
    organization = await got(plane.stranger, "/auth/organization")
    assert (organization["slug"], organization["id"]) == ("other", 2)
    assert (await got(plane.stranger, "/auth/usage"))["current_usage"]["active_sandboxes"] == 0
    history = await got(plane.stranger, "/auth/usage/history/sandboxes")
    assert {each["active_vms"] for each in history["data"]} == {0}
    await plane.stranger.put("/auth/organization", json={"name": "Theirs"})
    assert (await got(plane.client, "/auth/organization"))["name"] == "default"
    assert (await got(plane.client, "/auth/me"))["user_id"] == mine["id"]


async def test_without_a_key_every_account_route_is_closed(plane: Plane) -> None:
    document = (await plane.nobody.get("/openapi.json")).json()
    routes = [(method, path) for path, methods in document["paths"].items() for method in methods]
    account = [(method, path) for method, path in routes if path.startswith("/auth/")]
    assert len(account) >= 22
    for method, path in account:
        answer = await plane.nobody.request(method, path.replace("{key_id}", "x").replace("{member_id}", "x"), json={})
        expected = 400 if path in ("/auth/workos-callback", "/auth/refresh") else 401
        assert answer.status_code == expected, path


async def test_organization_profile_and_members(plane: Plane) -> None:
    organization = await got(plane.client, "/auth/organization")
    assert (organization["id"], organization["name"], organization["slug"]) == (1, "default", "default")
    assert organization["plan_id"] == "self-hosted"
    assert organization["created_at"].endswith("Z")
    assert (await plane.client.put("/auth/organization", json={"name": "My Company"})).json()["success"] is True
    page = await got(plane.client, "/auth/user/organizations")
    assert page["data"] == [{"id": 1, "name": "My Company", "role": "admin"}]
    assert (await plane.client.post("/auth/organization/switch", json={"organization_id": 1})).json()["success"]
    assert (await plane.client.put("/auth/organization", json={"name": "a\x1b[31mb"})).status_code == 400
    assert (await plane.client.put("/auth/profile", json={"first_name": "Ada"})).json()["success"] is True
    assert (await plane.client.put("/auth/profile", json={"last_name": "King Lovelace"})).json()["success"] is True
    me = await got(plane.client, "/auth/me")
    assert (me["first_name"], me["last_name"], me["role"]) == ("Ada", "King Lovelace", "admin")
    assert me["organization_id"] == 1
    assert me["email"] == f"{me['user_id']}@default.invalid"
    member = (await got(plane.client, "/auth/members"))["data"][0]
    assert (member["first_name"], member["role"], member["status"]) == ("Ada", "admin", "active")
    assert (await plane.client.put("/auth/profile", json={"first_name": " ", "last_name": ""})).status_code == 400
    extra = (await plane.client.post("/auth/api-keys", json={"name": "extra"})).json()["api_key"]["id"]
    assert (await plane.client.delete(f"/auth/members/{extra}")).json()["success"] is True
    assert len((await got(plane.client, "/auth/members"))["data"]) == 1


async def test_nobody_is_invited_and_the_cli_shows_why(plane: Plane) -> None:
    refused = await plane.client.post("/auth/members/invite", json={"email": "a@b"})
    assert (refused.status_code, refused.json()["code"]) == (400, "UNSUPPORTED")
    shown = await plane.client.post(
        "/auth/members/invite", json={"email": "a@b"}, headers={"User-Agent": "python-httpx/0.28.1"}
    )
    assert (shown.status_code, shown.json()["success"]) == (200, False)
    assert "API key" in shown.json()["message"]


async def test_usage_and_plans(running: Running) -> None:
    plane = await running.start(
        max_sandboxes=20, namespace_max_sandboxes=5, namespace_max_total_memory_mb=4096, max_vcpu=4
    )
    made = (await plane.client.post("/v1/sandboxes", json=CODE)).json()
    usage = await got(plane.client, "/auth/usage")
    assert usage["plan"]["name"] == "self-hosted"
    assert usage["limits"] == {
        "max_concurrent_sandboxes": 5,
        "max_total_vcpu": 20,
        "max_total_memory_mb": 4096,
        "max_total_disk_gb": 320.0,
        "max_vcpu_per_sandbox": 4,
        "max_memory_mb_per_sandbox": 16384,
        "max_disk_gb_per_sandbox": 64.0,
    }
    assert usage["current_usage"] == {
        "active_sandboxes": 1,
        "total_vcpu": 2,
        "total_memory_mb": 1024,
        "total_disk_gb": 2.0,
    }
    plan = (await got(plane.client, "/auth/plans"))["plans"][0]
    assert (plan["name"], plan["is_current"], plan["max_concurrent_sandboxes"]) == ("self-hosted", True, 5)
    for value in ("description", "upgrade_requirement"):
        assert isinstance(plan[value], str)
    await plane.client.delete(f"/v1/sandboxes/{made['id']}")
    assert (await got(plane.client, "/auth/usage"))["current_usage"]["active_sandboxes"] == 0


async def test_usage_history(plane: Plane) -> None:
    made = [(await plane.client.post("/v1/sandboxes", json=CODE)).json() for _ in range(3)]
    await plane.client.delete(f"/v1/sandboxes/{made[0]['id']}")
    sandboxes = (await got(plane.client, "/auth/usage/history/sandboxes", days=3))["data"]
    assert [each["active_vms"] for each in sandboxes] == [0, 0, 3]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d", each["date"]) for each in sandboxes)
    cost = (await got(plane.client, "/auth/usage/history/cost", days=2))["data"]
    assert [each["cost_usd"] for each in cost] == [0, 0]
    for kind in ("cpu", "ram", "disk"):
        days = (await got(plane.client, "/auth/usage/history/resources", type=kind, days=30))["data"]
        assert len(days) == 7
        assert all(isinstance(each["total_usage"], float) for each in days)
    for query in ("days=0", "days=-1", "days=91", "days=x", "days=nan", "type=gpu"):
        assert (await plane.client.get(f"/auth/usage/history/resources?{query}")).status_code == 400


async def test_there_is_no_money(plane: Plane) -> None:
    assert (await got(plane.client, "/auth/billing/credit/balance"))["balance_usd"] == "$0.00"
    assert (await got(plane.client, "/auth/billing/history", limit=20))["transactions"] == []
    assert (await got(plane.client, "/auth/billing/invoices", limit=10))["invoices"] == []
    assert (await got(plane.client, "/auth/billing/auto-recharge"))["enabled"] is False
    assert (await plane.client.get("/auth/billing/history?limit=0")).status_code == 400


async def test_a_key_with_limits_of_its_own_cannot_get_around_them(plane: Plane, running: Running) -> None:
    confined = await key_client(plane, running, quota=Quota(max_sandboxes=1))
    assert (await confined.post("/v1/sandboxes", json=CODE)).status_code == 201
    refused = await confined.post("/v1/sandboxes", json=CODE)
    assert (refused.status_code, refused.json()["error"]["details"]["limit"]) == (403, 1)
    assert (await confined.post("/auth/api-keys", json={"name": "k"})).json()["code"] == "FORBIDDEN"
    assert (await confined.put("/auth/organization", json={"name": "k"})).json()["code"] == "FORBIDDEN"
    own = (await got(confined, "/auth/api-keys"))["api_keys"]
    other = (await got(plane.client, "/auth/me"))["user_id"]
    assert len(own) == 1
    assert (await confined.delete(f"/auth/api-keys/{other}")).status_code == 404
    assert (await got(confined, "/auth/me"))["role"] == "member"
    assert (await got(confined, "/auth/usage"))["limits"]["max_concurrent_sandboxes"] == 1
    assert (await confined.delete(f"/auth/api-keys/{own[0]['id']}")).status_code == 200
    assert (await confined.get("/auth/me")).status_code == 401


async def test_no_key_makes_one_that_outlives_it(plane: Plane, running: Running) -> None:
    client = await key_client(plane, running, lifetime_seconds=40 * 86400)
    for lifetime in ("never", "3months"):
        refused = await client.post("/auth/api-keys", json={"name": "k", "expires_in": lifetime})
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    assert (await client.post("/auth/api-keys", json={"name": "k", "expires_in": "1month"})).status_code == 200


async def log_in(plane: Plane, code: str) -> httpx2.Response:
    body = {"code": code, "source": "cli", "redirect_uri": "http://127.0.0.1:39123/callback"}
    return await plane.nobody.post("/auth/workos-callback", json=body)


async def test_a_login_opens_the_account_and_nothing_else(plane: Plane, running: Running) -> None:
    key = plane.client.headers["X-API-Key"]
    session = (await log_in(plane, f" {key}\n")).json()
    assert key not in str(session)
    bearer = {"Authorization": f"Bearer {session['access_token']}"}
    client = running.client(plane.socket, bearer)
    me = await got(client, "/auth/me")
    assert me["user_id"] == (await got(plane.client, "/auth/me"))["user_id"]
    made = await client.post("/auth/api-keys", json={"name": "from-cli", "expires_in": "never"})
    assert FULL_KEY.fullmatch(made.json()["full_key"])
    for method, path in (("GET", "/v1/sandboxes"), ("POST", "/v1/sandboxes"), ("GET", "/metrics")):
        assert (await client.request(method, path, json=CODE)).status_code == 401
    refreshed = (await plane.nobody.post("/auth/refresh", json={"refresh_token": session["refresh_token"]})).json()
    assert refreshed["refresh_token"] == session["refresh_token"]
    client.headers["Authorization"] = f"Bearer {refreshed['access_token']}"
    assert (await client.get("/auth/me")).status_code == 200
    for wrong in (session["refresh_token"], session["access_token"][:-2], key[:-1]):
        client.headers["Authorization"] = f"Bearer {wrong}"
        assert (await client.get("/auth/me")).status_code == 401
    for wrong in (session["access_token"], key, "x", "e30.e30.e30"):
        assert (await plane.nobody.post("/auth/refresh", json={"refresh_token": wrong})).status_code == 401
    await plane.client.delete(f"/auth/api-keys/{me['user_id']}")
    client.headers["Authorization"] = f"Bearer {refreshed['access_token']}"
    assert (await client.get("/auth/me")).status_code == 401
    refresh = await plane.nobody.post("/auth/refresh", json={"refresh_token": session["refresh_token"]})
    assert refresh.status_code == 401


@pytest.mark.parametrize("code", ["x", "hopx_live_000000000000." + "x" * 43, "a.b.c", "x" * 512, "' OR 1=1 --"])
async def test_what_is_no_key_logs_nobody_in(plane: Plane, code: str) -> None:
    answer = await log_in(plane, code)
    assert (answer.status_code, answer.json()["code"]) == (401, "AUTHENTICATION_REQUIRED")
    assert code not in answer.json()["message"] or len(code) == 1


async def test_a_tokens_purpose_cannot_be_changed(plane: Plane, running: Running) -> None:
    made = (await plane.client.post("/v1/sandboxes", json=CODE)).json()
    agents = running.client(plane.socket, {"Authorization": f"Bearer {made['auth_token']}"})
    assert (await agents.get("/auth/me")).status_code == 401
    session = (await log_in(plane, plane.client.headers["X-API-Key"])).json()
    with pytest.raises(CoveError):
        plane.control.tokens.verify(session["access_token"])


def test_sessions_expire_and_are_not_forged() -> None:
    clock, key = Clock(), Ed25519PrivateKey.generate()
    sessions = Sessions(key, clock=clock)
    opened = sessions.open("k")
    assert opened.expires_at == clock.now + ACCESS_SECONDS
    assert sessions.key_of(opened.access_token) == "k"
    clock.now += ACCESS_SECONDS
    claims = {"aud": "cove-account", "sub": "k", "exp": 9999999999}
    wrong: list[str] = [
        opened.access_token,
        jwt.encode(claims, "", algorithm="none"),
        jwt.encode(claims, "x" * 64, algorithm="HS256"),
        jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA"),
        jwt.encode({"aud": "cove-account", "sub": "k"}, key, algorithm="EdDSA"),
        "a.b.c",
        AgentTokens(key, clock=clock).issue("1763382095i648uu1o").auth_token,
        "e" * 5000,
    ]
    for token in wrong:
        with pytest.raises(CoveError) as caught:
            sessions.key_of(token)
        assert caught.value.code == "AUTHENTICATION_REQUIRED"
    assert sessions.key_of_refresh(opened.refresh_token) == "k"
    clock.now += REFRESH_SECONDS
    with pytest.raises(CoveError):
        sessions.key_of_refresh(opened.refresh_token)


async def test_with_dev_everyone_has_an_account(running: Running) -> None:
    plane = await running.start(dev=True)
    session = (await log_in(plane, "anything at all")).json()
    assert session["access_token"]
    assert (await plane.nobody.post("/auth/refresh", json={"refresh_token": "x"})).json()["access_token"]
    me = await got(plane.nobody, "/auth/me")
    assert (me["user_id"], me["organization_id"]) == ("dev", 1)
    assert (await got(plane.nobody, "/auth/organization"))["id"] == 1
    refused = await plane.nobody.put("/auth/profile", json={"first_name": "x"})
    assert (refused.status_code, refused.json()["code"]) == (400, "UNSUPPORTED")
