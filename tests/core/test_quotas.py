"""Quotas of namespaces and keys: what counts, for whom, and that no race gets past them."""

import asyncio
from dataclasses import replace

import pytest
from tests.core.world import ALICE, BOB, World, until

from cove.core.planning import CreationPolicy
from cove.core.principal import Principal
from cove.models.errors import CoveError, error
from cove.models.limits import Limits
from cove.models.quotas import UNLIMITED, Quota
from cove.models.sandboxes import EndReason

pytestmark = pytest.mark.anyio


def limited(principal: Principal = ALICE, /, **ceilings: int) -> Principal:
    return replace(principal, namespace_quota=Quota(**ceilings))


def keyed(actor: str, /, **ceilings: int) -> Principal:
    return Principal("default", actor, key_quota=Quota(**ceilings))


async def refused(world: World, principal: Principal, **fields: object) -> CoveError:
    before = world.host.ids
    with pytest.raises(CoveError) as caught:
        await world.create(principal, **fields)
    assert caught.value.code == "RESOURCE_LIMIT_EXCEEDED"
    assert "limit" in caught.value.message
    assert world.host.ids == before
    return caught.value


async def test_of_fifty_creates_at_once_exactly_ten_pass(world: World) -> None:
    ten = limited(max_sandboxes=10)
    outcomes = await asyncio.gather(*(world.create(ten) for _ in range(50)), return_exceptions=True)
    refusals = [each for each in outcomes if isinstance(each, CoveError)]
    assert len(refusals) == 40
    assert {each.code for each in refusals} == {"RESOURCE_LIMIT_EXCEEDED"}
    assert len(world.host.ids) == len(await world.rows()) == 10
    assert refusals[0].details == {"limit": 10, "current": 10, "available": 0}


async def test_namespaces_do_not_count_for_each_other(world: World) -> None:
    await world.create(limited(max_sandboxes=1))
    await refused(world, limited(max_sandboxes=1))
    await world.create(limited(BOB, max_sandboxes=1))


@pytest.mark.parametrize(
    ("ceilings", "details"),
    [
        ({"max_total_vcpu": 5}, {"limit": 5, "current": 4, "available": 1}),
        ({"max_total_memory_mb": 3000}, {"limit": 3000, "current": 2048, "available": 952}),
        ({"max_total_disk_mb": 4096}, {"limit": 4096, "current": 4096, "available": 0}),
    ],
)
async def test_totals(world: World, ceilings: dict[str, int], details: dict[str, int]) -> None:
    principal = limited(**ceilings)
    for _ in range(2):
        await world.create(principal)
    failure = await refused(world, principal)
    assert failure.details == details
    assert "cove namespaces limits" in failure.remedy
    await world.create()


async def test_room_comes_back_with_every_end(world: World) -> None:
    one = limited(max_sandboxes=1)
    for _ in range(3):
        made = await world.create(one, timeout_seconds=60)
        await world.engine.lifecycle.delete(one, made.sandbox.id)
    expiring = (await world.create(one, timeout_seconds=60)).sandbox
    world.clock.now += 60
    await world.engine.lifecycle.expire(expiring.id)
    crashing = (await world.create(one)).sandbox
    world.host.crash(crashing.id)
    await world.engine.reconciler.reconcile()
    world.host.driver.failures.append(error("DISK_FULL", "No room."))
    with pytest.raises(CoveError):
        await world.create(one)
    await world.create(one)
    assert world.engine.quotas.usage_of(one).sandboxes == 1


async def test_what_ended_by_another_way_is_found_by_the_reconciler(world: World) -> None:
    one = limited(max_sandboxes=1)
    made = (await world.create(one)).sandbox
    await world.store.write(lambda work: work.sandboxes.end(made.id, reason=EndReason.KILLED, at=1.0))
    await refused(world, one)
    await world.engine.reconciler.reconcile()
    await world.create(one)


@pytest.mark.parametrize(("rest", "wake"), [("pause", "resume"), ("stop", "start")])
async def test_a_sandbox_that_rests_counts_so_that_it_can_wake(world: World, rest: str, wake: str) -> None:
    one = limited(max_sandboxes=1)
    made = (await world.create(one)).sandbox
    await getattr(world.engine.lifecycle, rest)(one, made.id)
    await world.engine.reconciler.reconcile()
    await refused(world, one)
    await getattr(world.engine.lifecycle, wake)(one, made.id)
    await refused(world, one)


async def test_counts_survive_a_restart(world: World) -> None:
    two, key = limited(max_sandboxes=2), keyed("k", max_sandboxes=1)
    await world.create(two)
    await world.create(key)
    await world.restart()
    await world.engine.reconciler.try_pass()
    await refused(world, two)
    await refused(world, key)


async def test_a_host_that_is_down_at_the_start_does_not_hide_what_exists(world: World) -> None:
    one = limited(max_sandboxes=1)
    await world.create(one)
    await world.restart()
    world.host.down = True
    await world.engine.reconciler.try_pass()
    world.host.down = False
    await refused(world, one)


async def test_a_key_has_a_quota_beside_its_namespaces(world: World) -> None:
    key = replace(keyed("k", max_sandboxes=2, max_total_vcpu=3), namespace_quota=Quota(max_sandboxes=3))
    await world.create(key)
    assert "API key" in (await refused(world, key)).message
    await world.create(key, resources={"vcpu": 1})
    await world.create(limited(max_sandboxes=3))
    assert "Namespace default" in (await refused(world, key)).message


async def test_ceilings_for_one_sandbox_refuse_what_is_asked_and_lower_what_is_not(world: World) -> None:
    small = limited(max_vcpu=1, max_memory_mb=512)
    made = await world.create(small)
    assert made.sandbox.limits == Limits(vcpu=1, memory_mb=512)
    failure = await refused(world, small, resources={"memory_mb": 513})
    assert failure.details == {"field": "resources.memory_mb", "limit": 512, "current": 513, "available": 512}
    assert (await world.create(small, resources={"vcpu": 1})).sandbox.limits.memory_mb == 512
    await refused(world, limited(max_memory_mb=1))


async def test_defaults_hold_where_nothing_was_set(world: World) -> None:
    world.namespace_quota = Quota(max_sandboxes=1, max_total_vcpu=8)
    await world.restart()
    await world.create()
    await refused(world, ALICE)
    roomy = limited(max_sandboxes=5)
    for _ in range(3):
        await world.create(roomy)
    await refused(world, roomy)


async def test_zero_is_a_limit(world: World) -> None:
    assert (await refused(world, limited(max_sandboxes=0))).details["available"] == 0


async def test_nothing_stays_in_the_books(world: World) -> None:
    made = await asyncio.gather(*(world.create(keyed(f"k{number}")) for number in range(5)))
    for each in made:
        await world.engine.lifecycle.delete(ALICE, each.sandbox.id)
    await until(lambda: not world.host.ids)
    assert world.engine.quotas.ids() == frozenset()
    assert not world.engine.quotas._totals  # pyright: ignore[reportPrivateUsage]


async def test_members_of_the_pool_count_for_nobody(world: World) -> None:
    world.policy = CreationPolicy(max_sandboxes=1)
    world.pool_size = 2
    await world.restart()
    await world.engine.start()
    await until(lambda: world.engine.pool.sizes() == {"code-interpreter": 2})
    assert (await world.create()).pooled
    await refused(world, ALICE)


def test_quotas_combine() -> None:
    namespace, key = Quota(max_sandboxes=5, max_vcpu=2), Quota(max_sandboxes=3, max_disk_mb=100)
    assert namespace.within(key) == Quota(max_sandboxes=3, max_vcpu=2, max_disk_mb=100)
    assert key.over(namespace) == Quota(max_sandboxes=3, max_vcpu=2, max_disk_mb=100)
    assert UNLIMITED.over(key) == key.within(UNLIMITED) == key
    assert UNLIMITED.is_open
    assert not Quota(max_sandboxes=0).is_open
