"""Names of sandboxes: unique among those that live, in their namespace and lease, whoever is first."""

import asyncio

import pytest
from tests.core.world import ALICE, BOB, World, until

from cove.core.creation import Creation
from cove.models.errors import CoveError
from cove.models.sandboxes import SandboxStatus

pytestmark = pytest.mark.anyio


async def attempt(world: World, name: str) -> Creation | CoveError:
    try:
        return await world.create(name=name)
    except CoveError as failure:
        return failure


async def taken(world: World, name: str) -> CoveError:
    found = await attempt(world, name)
    assert isinstance(found, CoveError)
    return found


async def test_a_name_is_kept_and_found(world: World) -> None:
    made = (await world.create(name="analysis")).sandbox
    await world.create()
    assert (await world.engine.lifecycle.get(ALICE, made.id)).name == "analysis"
    page = await world.engine.lifecycle.list(ALICE, limit=10, name="analysis")
    assert [row.id for row in page.sandboxes] == [made.id]
    assert not (await world.engine.lifecycle.list(BOB, limit=10, name="analysis")).sandboxes


async def test_of_fifty_at_once_one_wins_and_the_others_learn_who(world: World) -> None:
    outcomes = await asyncio.gather(*(attempt(world, "one") for _ in range(50)))
    (winner,) = [each for each in outcomes if isinstance(each, Creation)]
    losers = [each for each in outcomes if isinstance(each, CoveError)]
    assert {(each.code, each.details["sandbox_id"]) for each in losers} == {("CONFLICT", winner.sandbox.id)}
    assert world.host.ids == {winner.sandbox.id}
    assert world.host.calls.count("create") == 1
    assert world.engine.quotas.usage_of(ALICE).sandboxes == 1


async def test_the_store_has_the_last_word_between_processes(world: World) -> None:
    gate = world.host.driver.gate
    gate.clear()
    first = asyncio.create_task(attempt(world, "one"))
    async with asyncio.timeout(10):
        while "create" not in world.host.calls:
            await asyncio.sleep(0)
    # Another engine over the same store: it shares no lock with the first.
    await world.restart()
    await world.engine.catalog.refresh()
    second = asyncio.create_task(attempt(world, "one"))
    async with asyncio.timeout(10):
        while world.host.calls.count("create") < 2:
            await asyncio.sleep(0)
    gate.set()
    outcomes = await asyncio.gather(first, second)
    (winner,) = [each for each in outcomes if isinstance(each, Creation)]
    (loser,) = [each for each in outcomes if isinstance(each, CoveError)]
    assert (loser.code, loser.details["sandbox_id"]) == ("CONFLICT", winner.sandbox.id)
    assert world.host.ids == {winner.sandbox.id}


async def test_the_end_frees_a_name(world: World) -> None:
    first = (await world.create(name="one")).sandbox
    await world.engine.lifecycle.stop(ALICE, first.id)
    assert (await taken(world, "one")).details["sandbox_id"] == first.id
    await world.engine.lifecycle.delete(ALICE, first.id)
    second = (await world.create(name="one")).sandbox
    page = await world.engine.lifecycle.list(ALICE, limit=10, name="one", status=SandboxStatus.DELETED)
    assert [row.id for row in page.sandboxes] == [first.id]
    assert second.id != first.id


async def test_a_failed_create_frees_a_name(world: World) -> None:
    world.host.down = True
    assert (await taken(world, "one")).code == "HOST_UNAVAILABLE"
    world.host.down = False
    assert (await world.create(name="one")).sandbox.name == "one"


async def test_each_namespace_and_each_lease_has_names_of_its_own(world: World) -> None:
    async with world.engine.leases.open(ALICE) as lease:
        leased = world.engine.delegated_keys.principal_of(lease.api_key)
        assert leased is not None
        made = [await world.create(principal, name="one") for principal in (ALICE, BOB, leased)]
    assert len({each.sandbox.id for each in made}) == 3


@pytest.mark.parametrize("name", ["", "-a", "_a", "a" * 64, "a b", "a/b", "a\n", "é", "*"])
async def test_what_is_no_name(world: World, name: str) -> None:
    with pytest.raises(ValueError, match=r"name"):
        await world.create(name=name)
    assert world.host.ids == set()


async def test_a_named_sandbox_comes_from_the_pool(world: World) -> None:
    world.pool_size = 1
    await world.restart()
    await world.engine.start()
    await until(lambda: world.engine.pool.sizes() == {"code-interpreter": 1})
    made = await world.create(name="one")
    assert made.pooled
    assert made.sandbox.name == "one"
