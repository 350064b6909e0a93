"""Keys that are in no table: those that the server delegates, and those that a microsandbox server gave out."""

import base64
import json
from dataclasses import replace
from typing import Any

import jwt
import pytest
from tests.core.world import ALICE, World

from cove.core.credentials import Credentials
from cove.core.keys import ApiKeys
from cove.core.microsandbox_tokens import MicrosandboxTokens
from cove.core.namespace_access import NamespaceAccess
from cove.core.principal import Principal
from cove.models.errors import CoveError
from cove.models.quotas import Quota
from cove.models.scopes import Scope

pytestmark = pytest.mark.anyio

SECRET = "s" * 64
NOW = 1_800_000_000


class Parts:
    """Credentials over a world's store, and what they are made of."""

    def __init__(self, world: World, *, secret: str | None = SECRET) -> None:
        self.keys = ApiKeys(world.store, clock=world.clock)
        self.namespaces = NamespaceAccess(world.store, clock=world.clock)
        self.delegated = world.engine.delegated_keys
        foreign = None if secret is None else MicrosandboxTokens(secret, clock=world.clock)
        self.all = Credentials(self.keys, self.delegated, self.namespaces, foreign=foreign, clock=world.clock)

    async def refused(self, key: str) -> str:
        with pytest.raises(CoveError) as caught:
            await self.all.principal_of(key)
        assert caught.value.code == "AUTHENTICATION_REQUIRED"
        return caught.value.message


def signed(secret: str = SECRET, *, algorithm: str = "HS256", **claims: Any) -> str:
    values = {"exp": NOW + 60, "iat": NOW, **claims}
    return "msb_" + jwt.encode({name: each for name, each in values.items() if each is not None}, secret, algorithm)


async def test_a_delegated_key_ends_when_it_is_withdrawn(world: World) -> None:
    parts = Parts(world)
    with parts.delegated.lent(ALICE) as key:
        assert (await parts.all.principal_of(key)).actor == "alice"
        await parts.refused(f"{key}x")
        await parts.refused(key.partition(".")[0])
    await parts.refused(key)


async def test_a_delegated_key_may_no_more_than_the_key_behind_it(world: World) -> None:
    parts = Parts(world)
    made = await parts.keys.create("reader", scopes=frozenset({Scope.READ}), lifetime_seconds=60)
    principal = await parts.all.principal_of(made.key)
    key = parts.delegated.issue(replace(principal, scopes=frozenset({Scope.READ, Scope.EXEC})))
    assert (await parts.all.principal_of(key)).scopes == {Scope.READ}
    world.clock.now += 61
    assert "expired" in await parts.refused(key)


async def test_a_delegated_key_ends_when_the_key_behind_it_is_revoked(world: World) -> None:
    parts = Parts(world)
    made = await parts.keys.create("laptop")
    key = parts.delegated.issue(await parts.all.principal_of(made.key))
    await parts.keys.revoke(made.stored.id)
    assert "revoked" in await parts.refused(key)


@pytest.mark.parametrize(
    ("claims", "namespace", "enters"),
    [
        ({"namespace": "team_A"}, "team_A", False),
        ({"namespace": "*"}, "default", True),
        ({}, "default", True),
        ({"exp": NOW + 0.5}, "default", True),
        ({"iat": None}, "default", True),
    ],
)
async def test_keys_of_a_microsandbox_server(
    world: World, claims: dict[str, Any], namespace: str, enters: bool
) -> None:
    principal = await Parts(world).all.principal_of(signed(**claims))
    assert (principal.namespace, principal.enters_any_namespace) == (namespace, enters)
    assert principal.organization_id > 0
    assert principal.scopes == {Scope.READ, Scope.EXEC}
    assert principal.actor != (await Parts(world).all.principal_of(signed(**claims, other=1))).actor


def unsigned(**header: str) -> str:
    parts = ({"typ": "JWT", **header}, {"exp": NOW + 60, "iat": NOW})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return "msb_" + ".".join((*encoded, ""))


@pytest.mark.parametrize(
    "key",
    [
        signed("t" * 64),
        signed(exp=NOW),
        signed(exp=None),
        signed(exp="soon"),
        signed(exp=True),
        signed(algorithm="HS384"),
        signed(algorithm="HS512"),
        signed(namespace=7),
        signed(namespace="a/b"),
        signed(namespace=None, exp=1e400),
        unsigned(alg="none"),
        unsigned(alg="HS256"),
        unsigned(alg="RS256"),
        signed()[:-1],
        signed().replace("msb_", "hopx_live_"),
        signed().removeprefix("msb_"),
        "msb_..",
    ],
)
async def test_what_a_microsandbox_server_did_not_sign_is_refused(world: World, key: str) -> None:
    assert SECRET not in await Parts(world).refused(key)


async def test_without_the_servers_key_none_of_its_keys_is_honoured(world: World) -> None:
    await Parts(world, secret=None).refused(signed())


async def test_namespaces_are_entered_only_by_those_who_may(world: World) -> None:
    access = Parts(world).namespaces
    assert await access.enter(ALICE, "default", making=False) is ALICE
    with pytest.raises(CoveError) as caught:
        await access.enter(ALICE, "other", making=True)
    assert caught.value.code == "FORBIDDEN"
    assert [row.name for row in await world.store.read(lambda work: work.namespaces.all())] == ["default"]


async def test_an_entered_namespace_has_its_number_and_its_quota(world: World) -> None:
    access, anyone = Parts(world).namespaces, Principal("default", "ops", enters_any_namespace=True)
    looking = await access.enter(anyone, "new", making=False)
    assert (looking.namespace, looking.organization_id) == ("new", 0)
    assert await world.store.read(lambda work: work.namespaces.get("new")) is None
    made = await access.enter(anyone, "new", making=True)
    assert made.organization_id == 2
    quota = Quota(max_sandboxes=1)
    await world.store.write(lambda work: work.namespaces.set_quota("new", quota))
    limited = await Parts(world).namespaces.enter(anyone, "new", making=True)
    assert limited.namespace_quota == quota
    await world.create(limited)
    with pytest.raises(CoveError) as caught:
        await world.create(limited)
    assert caught.value.code == "RESOURCE_LIMIT_EXCEEDED"


async def test_namespaces_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cove.core.namespace_access.MAX_NAMESPACES", 2)
    access, anyone = Parts(world).namespaces, Principal("default", "ops", enters_any_namespace=True)
    await access.enter(anyone, "second", making=True)
    with pytest.raises(CoveError) as caught:
        await access.enter(anyone, "third", making=True)
    assert caught.value.code == "RESOURCE_LIMIT_EXCEEDED"
    for name in ("", "a b", "-a", "a" * 64, "a\n"):
        with pytest.raises(CoveError) as caught:
            await access.enter(anyone, name, making=True)
        assert caught.value.code == "INVALID_REQUEST"
