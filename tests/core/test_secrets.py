"""Secrets: what a create makes of them, and that a change of one reaches whatever uses it."""

import asyncio

import pytest
from tests.core.world import ALICE, BOB, World, until

from cove.core.principal import Principal
from cove.models.errors import CoveError
from cove.models.secrets import EgressSecret, SecretPlace, SetVaultSecret

pytestmark = pytest.mark.anyio

VALUE = "sk-live-1234567890"
OPEN = {"allow": ["api.example.com"]}
GIVEN = {"TOKEN": {"value": VALUE, "hosts": ["api.example.com"]}}
KEPT = {"TOKEN": {"from_vault": "openai"}}


async def keep(world: World, value: str = VALUE, *, principal: Principal = ALICE, **options: object) -> int:
    """The number of sandboxes that could not be told."""
    fields = {"hosts": ["api.example.com"], **options}
    wanted = SetVaultSecret.model_validate({"value": value, **fields})
    return (await world.engine.secrets.put(principal, "openai", wanted)).behind


def held(world: World, sandbox_id: str) -> dict[str, str]:
    return {name: secret.value for name, secret in world.host.secrets[sandbox_id].items()}


async def refused(world: World, **fields: object) -> CoveError:
    with pytest.raises(CoveError) as caught:
        await world.create(**fields)
    assert not world.host.ids
    assert VALUE not in str(caught.value) + repr(caught.value.details)
    return caught.value


async def test_programs_get_a_placeholder_and_the_host_the_value(world: World) -> None:
    first = (await world.create(secrets=GIVEN, network=OPEN)).sandbox
    second = (await world.create(secrets=GIVEN, network=OPEN)).sandbox
    placeholders = {world.host.driver.sandboxes[row.id].env_vars["TOKEN"] for row in (first, second)}
    assert len(placeholders) == 2, "of each sandbox its own"
    assert world.host.secrets[first.id]["TOKEN"] == EgressSecret(
        name="TOKEN",
        placeholder=first.secrets["TOKEN"].placeholder,
        value=VALUE,
        hosts=("api.example.com",),
        places=frozenset({SecretPlace.HEADERS}),
    )
    assert world.host.driver.sandboxes[first.id].env_vars["TOKEN"] == first.secrets["TOKEN"].placeholder
    assert await world.row(first.id) == first
    assert [event.details["secrets"] for event in await world.events()] == [["TOKEN"]] * 2


async def test_values_are_nowhere_in_the_store_and_in_no_text(world: World) -> None:
    await keep(world)
    made = await world.create(secrets=GIVEN, network=OPEN)
    assert VALUE not in repr(world.host.specs) + repr(made) + repr(await world.engine.secrets.list(ALICE))
    await world.database.close()
    for path in world.directory.glob("cove.db*"):
        assert VALUE.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"network": {"preset": "none"}}, "INVALID_REQUEST"),
        ({}, "INVALID_REQUEST"),
        ({"network": {"allow": ["*.api.example.com", "api.example.com:80"]}}, "INVALID_REQUEST"),
        ({"network": {"allow": ["*"], "deny": ["*.example.com"]}}, "INVALID_REQUEST"),
        ({"network": OPEN, "env_vars": {"TOKEN": "mine"}}, "INVALID_REQUEST"),
        ({"network": OPEN, "secrets": KEPT}, "RESOURCE_NOT_FOUND"),
    ],
)
async def test_creates_that_are_refused(world: World, fields: dict[str, object], code: str) -> None:
    assert (await refused(world, **{"secrets": GIVEN, **fields})).code == code


async def test_wider_rules_cover_a_secrets_hosts(world: World) -> None:
    secret = {"value": VALUE, "hosts": ["a.example.com", "*.b.example.com:8443"]}
    for allow in (["*"], ["*.example.com:443,8443"], ["a.example.com:443", "*.b.example.com:8000-9000"]):
        made = await world.create(secrets={"TOKEN": secret}, network={"allow": allow})
        assert made.sandbox.secrets["TOKEN"].hosts == ("a.example.com", "*.b.example.com:8443")


async def test_a_kept_secret_goes_to_the_hosts_that_it_is_kept_for(world: World) -> None:
    await keep(world, hosts=["*.example.com", "api.example.org"], places=["query"])
    public = {"preset": "public"}
    row = (await world.create(secrets=KEPT, network=public)).sandbox
    assert row.secrets["TOKEN"].hosts == ("*.example.com", "api.example.org")
    assert row.secrets["TOKEN"].places == (SecretPlace.QUERY,)
    narrower = {"TOKEN": {"from_vault": "openai", "hosts": ["api.example.com"]}}
    assert (await world.create(secrets=narrower, network=public)).sandbox.secrets["TOKEN"].hosts == ("api.example.com",)
    for beyond in ({"hosts": ["evil.example.net"]}, {"hosts": ["*.example.org"]}, {"places": ["query", "body"]}):
        with pytest.raises(CoveError) as caught:
            await world.create(secrets={"TOKEN": {"from_vault": "openai", **beyond}}, network=public)
        assert caught.value.code == "FORBIDDEN"
    with pytest.raises(CoveError) as theirs:
        await world.create(BOB, secrets=KEPT, network=public)
    assert theirs.value.code == "RESOURCE_NOT_FOUND"


async def test_a_new_value_reaches_all_that_use_it_whatever_they_do(world: World) -> None:
    await keep(world)
    rows = [(await world.create(secrets=KEPT, network=OPEN)).sandbox for _ in range(3)]
    await world.engine.lifecycle.pause(ALICE, rows[1].id)
    await world.engine.lifecycle.stop(ALICE, rows[2].id)
    other = (await world.create(secrets=GIVEN, network=OPEN)).sandbox
    placeholders = {row.id: row.secrets["TOKEN"].placeholder for row in rows}
    assert await keep(world, "sk-live-new-value") == 0
    for row in rows:
        assert held(world, row.id) == {"TOKEN": "sk-live-new-value"}
        assert world.host.secrets[row.id]["TOKEN"].placeholder == placeholders[row.id]
    assert held(world, other.id) == {"TOKEN": VALUE}
    (entry,) = await world.engine.secrets.list(ALICE)
    assert {*entry.users} == {*placeholders}
    assert await world.engine.secrets.list(BOB) == ()


async def test_a_host_that_does_not_answer_is_told_later_and_after_a_restart(world: World) -> None:
    await keep(world)
    row = (await world.create(secrets=KEPT, network=OPEN)).sandbox
    await world.engine.start()
    world.host.down = True
    assert await keep(world, "sk-live-second") == 1
    world.host.down = False
    await until(lambda: held(world, row.id) == {"TOKEN": "sk-live-second"})
    world.host.down = True
    assert await keep(world, "sk-live-third") == 1
    await world.engine.stop()
    world.host.down = False
    await world.restart()
    await world.engine.start()
    await until(lambda: held(world, row.id) == {"TOKEN": "sk-live-third"})


async def test_a_secret_that_changes_while_a_sandbox_is_made(world: World) -> None:
    await keep(world)
    world.host.hang.clear()
    creating = asyncio.create_task(world.create(secrets=KEPT, network=OPEN))
    await until(lambda: "create" in world.host.calls)
    assert await keep(world, "sk-live-newer") == 0, "no row stands for it yet"
    world.host.hang.set()
    row = (await creating).sandbox
    assert held(world, row.id) == {"TOKEN": "sk-live-newer"}


async def test_a_secret_that_is_deleted_while_a_sandbox_is_made(world: World) -> None:
    await keep(world)
    world.host.hang.clear()
    creating = asyncio.create_task(world.create(secrets=KEPT, network=OPEN))
    await until(lambda: "create" in world.host.calls)
    await world.engine.secrets.remove(ALICE, "openai", force=False)
    await keep(world, "sk-live-of-the-same-name")
    await world.engine.secrets.remove(ALICE, "openai", force=False)
    world.host.hang.set()
    with pytest.raises(CoveError, match="no secret 'openai'"):
        await creating
    assert not world.host.ids


async def test_deletion_needs_force_while_sandboxes_use_it(world: World) -> None:
    await keep(world)
    row = (await world.create(secrets=KEPT, network=OPEN)).sandbox
    with pytest.raises(CoveError) as caught:
        await world.engine.secrets.remove(ALICE, "openai", force=False)
    assert (caught.value.code, caught.value.details) == ("CONFLICT", {"sandboxes": 1})
    change = await world.engine.secrets.remove(ALICE, "openai", force=True)
    assert (change.entry.users, change.behind) == ((row.id,), 0)
    assert held(world, row.id) == {}
    await keep(world, "sk-live-for-others")
    assert held(world, row.id) == {}, "withdrawn is withdrawn"
    found = await world.row(row.id)
    assert found is not None
    assert found.secrets["TOKEN"].withdrawn
    assert [event.action for event in await world.events()][:2] == ["secret.set", "secret.deleted"]


async def test_hosts_that_a_secret_is_not_kept_for_any_more(world: World) -> None:
    await keep(world, hosts=["api.example.com", "api.example.org"])
    row = (await world.create(secrets=KEPT, network={"preset": "public"})).sandbox
    await keep(world, hosts=["api.example.org"])
    assert world.host.secrets[row.id]["TOKEN"].hosts == ("api.example.org",)
    await keep(world, hosts=["api.example.net"])
    assert held(world, row.id) == {}


async def test_secrets_of_one_sandbox(world: World) -> None:
    await keep(world)
    row = (await world.create(secrets={**GIVEN, "KEPT": {"from_vault": "openai"}}, network=OPEN)).sandbox
    secrets = world.engine.secrets
    await secrets.change(ALICE, row.id, "TOKEN", "sk-live-rotated")
    assert held(world, row.id) == {"TOKEN": "sk-live-rotated", "KEPT": VALUE}
    for name, code in (("KEPT", "CONFLICT"), ("OTHER", "RESOURCE_NOT_FOUND")):
        with pytest.raises(CoveError) as caught:
            await secrets.change(ALICE, row.id, name, "sk-live-rotated")
        assert caught.value.code == code
    with pytest.raises(CoveError, match="not found"):
        await secrets.change(BOB, row.id, "TOKEN", "sk-live-of-bob")
    for name in ("TOKEN", "KEPT"):
        assert (await secrets.withdraw(ALICE, row.id, name)).withdrawn
    assert held(world, row.id) == {}
    await secrets.change(ALICE, row.id, "TOKEN", "sk-live-again")
    assert held(world, row.id) == {"TOKEN": "sk-live-again"}


async def test_a_withdrawal_that_the_host_did_not_hear_of_is_repeated(world: World) -> None:
    row = (await world.create(secrets=GIVEN, network=OPEN)).sandbox
    await world.engine.start()
    world.host.down = True
    with pytest.raises(CoveError) as caught:
        await world.engine.secrets.withdraw(ALICE, row.id, "TOKEN")
    assert caught.value.code == "HOST_UNAVAILABLE"
    world.host.down = False
    await until(lambda: held(world, row.id) == {})


async def test_the_number_of_secrets_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cove.core.vault.MAX_VAULT_SECRETS", 1)
    await keep(world)
    await keep(world, "sk-live-changed")
    await keep(world, principal=BOB)
    wanted = SetVaultSecret(value=VALUE, hosts=("api.example.com",))
    with pytest.raises(CoveError) as caught:
        await world.engine.secrets.put(ALICE, "second", wanted)
    assert caught.value.code == "RESOURCE_LIMIT_EXCEEDED"


async def test_a_member_of_the_pool_gets_its_secrets_before_its_network(world: World) -> None:
    world.pool_size = 1
    await world.restart()
    await world.engine.start()
    await until(lambda: world.engine.pool.sizes() == {"code-interpreter": 1})
    made = await world.create(secrets=GIVEN, network=OPEN)
    assert made.pooled
    assert held(world, made.sandbox.id) == {"TOKEN": VALUE}
    calls = [call for call in world.host.calls if call in ("claim", "set_secrets", "set_network")]
    assert calls == ["claim", "set_secrets", "set_network"]
