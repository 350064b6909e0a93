"""Creates: from a template and from the pool, and that nothing is left when they fail."""

import asyncio

import pytest
from tests.core.world import ALICE, World, until

from cove.core.planning import CreationPolicy
from cove.models.errors import CoveError, error
from cove.models.isolation import Isolation
from cove.models.limits import Limits
from cove.models.sandboxes import SandboxStatus

pytestmark = pytest.mark.anyio


async def refused(world: World, **fields: object) -> CoveError:
    """The error of a create that must leave nothing behind."""
    before = world.host.ids
    with pytest.raises(CoveError) as caught:
        await world.create(**fields)
    assert world.host.ids == before
    assert (await world.rows()).keys() == before
    assert len(world.engine.directory) == len(before)
    return caught.value


async def test_a_sandbox_runs_and_is_stored_and_can_be_found(world: World) -> None:
    made = await world.create(env_vars={"A": "1"}, timeout_seconds=60, region="here")
    row = made.sandbox
    assert (row.status, row.namespace, row.template_name) == (SandboxStatus.RUNNING, "default", "code-interpreter")
    assert row.deadline == world.clock.now + 60
    assert world.host.ids == {row.id}
    assert await world.row(row.id) == row
    record = world.host.driver.sandboxes[row.id].record
    assert record.deadline == row.deadline
    assert str(world.engine.directory.socket_of(row.id)) == record.socket_path
    assert world.host.driver.sandboxes[row.id].env_vars == {"A": "1"}
    assert [(event.action, event.actor, event.subject) for event in await world.events()] == [
        ("sandbox.created", "alice", row.id)
    ]


async def test_environments_are_not_stored(world: World) -> None:
    await world.create(env_vars={"NAME": "a very secret value"})
    await world.database.close()
    for path in world.directory.glob("cove.db*"):
        assert b"very secret" not in path.read_bytes()


async def test_timeouts(world: World) -> None:
    assert (await world.create()).sandbox.timeout_seconds == 3600
    endless = (await world.create(timeout_seconds=0)).sandbox
    assert (endless.timeout_seconds, endless.deadline) == (None, None)


async def test_templates_by_name_and_by_id(world: World) -> None:
    by_name = (await world.create(template_name="base")).sandbox
    by_id = (await world.create(template_name=None, template_id=int(by_name.template_id))).sandbox
    assert by_id.template_name == "base"


async def test_unknown_templates(world: World) -> None:
    failure = await refused(world, template_name="nonsense")
    assert failure.code == "TEMPLATE_NOT_FOUND"
    assert failure.details["available_templates"] == ["base", "code-interpreter"]
    assert (await refused(world, template_name=None)).code == "MISSING_PARAMETER"
    assert (await refused(world, template_name=None, template_id="99")).code == "TEMPLATE_NOT_FOUND"


async def test_a_template_that_the_host_lost_is_not_built(world: World) -> None:
    del world.host.manifests["base"]
    await world.engine.catalog.refresh()
    assert (await refused(world, template_name="base")).code == "TEMPLATE_NOT_BUILT"


async def test_limits_above_the_servers_are_refused(world: World) -> None:
    failure = await refused(world, resources={"memory_mb": 1024 * 1024})
    assert failure.code == "RESOURCE_LIMIT_EXCEEDED"
    assert "limit" in failure.message
    assert failure.details["limit"] == 16 * 1024
    made = await world.create(resources={"memory_mb": 512})
    assert made.sandbox.limits == Limits(memory_mb=512)


async def test_weaker_isolation_than_the_servers_is_refused(world: World) -> None:
    world.policy = CreationPolicy(isolation=Isolation.GVISOR)
    await world.restart()
    assert (await refused(world, isolation="namespace")).code == "FORBIDDEN"


async def test_the_quota_counts_creates_that_are_under_way(world: World) -> None:
    world.policy = CreationPolicy(max_sandboxes=3)
    await world.restart()
    world.host.driver.gate.clear()
    begun = [asyncio.create_task(world.create()) for _ in range(3)]
    await until(lambda: world.host.calls.count("create") == 3)
    with pytest.raises(CoveError) as caught:
        await world.create()
    assert caught.value.code == "RESOURCE_LIMIT_EXCEEDED"
    assert caught.value.details == {"limit": 3, "current": 3, "available": 0}
    world.host.driver.gate.set()
    made = await asyncio.gather(*begun)
    await world.engine.lifecycle.delete(ALICE, made[0].sandbox.id)
    await world.create()


async def test_what_a_host_refuses_is_passed_on(world: World) -> None:
    world.host.driver.failures.append(error("DISK_FULL", "No room."))
    assert (await refused(world)).code == "DISK_FULL"


async def test_a_host_that_may_have_started_it_is_told_to_destroy_it(world: World) -> None:
    world.host.created_then_lost = 1
    assert (await refused(world)).code == "HOST_UNAVAILABLE"


async def test_a_start_that_takes_too_long_fails_and_leaves_nothing(world: World) -> None:
    world.policy = CreationPolicy(create_seconds=0.05)
    await world.restart()
    world.host.driver.gate.clear()
    assert (await refused(world)).code == "TIMEOUT"
    world.host.driver.gate.set()
    await world.engine.reconciler.reconcile()
    assert world.host.ids == set()


async def test_a_store_that_fails_leaves_nothing_on_the_host(world: World) -> None:
    await world.engine.catalog.refresh()
    await world.database.close()
    with pytest.raises(CoveError) as caught:
        await world.create()
    assert caught.value.code == "STORE_UNAVAILABLE"
    assert world.host.ids == set()
    assert len(world.engine.directory) == 0


async def test_a_create_whose_caller_went_away_is_undone(world: World) -> None:
    world.host.driver.gate.clear()
    task = asyncio.create_task(world.create())
    await until(lambda: "create" in world.host.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    world.host.driver.gate.set()
    await until(lambda: "destroy" in world.host.calls and not world.host.ids)
    assert await world.rows() == {}
    assert len(world.engine.directory) == 0


@pytest.fixture
async def pooled(world: World) -> World:
    world.pool_size = 2
    await world.restart()
    await world.engine.start()
    await until(lambda: world.engine.pool.sizes() == {"code-interpreter": 2})
    return world


async def test_a_member_of_the_pool_becomes_the_sandbox(pooled: World) -> None:
    members = pooled.host.members()
    made = await pooled.create(timeout_seconds=60, env_vars={"A": "1", "B": "ü"})
    assert made.pooled
    assert made.sandbox.id in members
    sandbox = pooled.host.driver.sandboxes[made.sandbox.id]
    assert (sandbox.record.pooled, sandbox.record.deadline) == (False, made.sandbox.deadline)
    assert sandbox.env_vars == {"A": "1", "B": "ü"}
    await until(lambda: pooled.engine.pool.sizes() == {"code-interpreter": 2})


async def test_an_empty_pool_makes_nobody_wait(pooled: World) -> None:
    made = await asyncio.gather(*(pooled.create() for _ in range(6)))
    assert len({each.sandbox.id for each in made}) == 6
    assert sum(each.pooled for each in made) >= 2
    assert any(not each.pooled for each in made)


@pytest.mark.parametrize(
    "fields",
    [{"resources": {"memory_mb": 512}}, {"template_name": "base"}, {"isolation": "fake"}],
)
async def test_members_are_only_for_creates_with_the_defaults(pooled: World, fields: dict[str, object]) -> None:
    assert not (await pooled.create(**fields)).pooled


async def test_a_member_that_died_is_skipped(pooled: World) -> None:
    for member in pooled.host.members():
        pooled.host.crash(member)
    made = await pooled.create()
    assert made.sandbox.id in pooled.host.ids


async def test_a_member_that_does_not_take_its_environment_is_not_handed_out(pooled: World) -> None:
    members = pooled.host.members()
    pooled.host.driver.agent_status = 500
    made = await pooled.create(env_vars={"A": "1"})
    assert not made.pooled
    assert made.sandbox.id not in members
    assert not members & pooled.host.ids
    assert pooled.host.driver.sandboxes[made.sandbox.id].env_vars == {"A": "1"}


async def test_the_pool_recovers_from_a_host_that_fails(pooled: World) -> None:
    pooled.host.driver.failures.append(error("CAPACITY_EXHAUSTED", "Full."))
    await pooled.create()
    await until(lambda: pooled.engine.pool.sizes() == {"code-interpreter": 2})
    assert len(pooled.host.members()) == 2


async def test_a_template_that_is_built_anew_gets_new_members(pooled: World) -> None:
    old = pooled.host.members()
    manifest = pooled.host.manifests["code-interpreter"]
    pooled.host.manifests["code-interpreter"] = manifest.model_copy(update={"digest": "new"})
    await until(lambda: len(pooled.host.members()) == 2 and not pooled.host.members() & old)


async def test_the_pool_ends_with_the_server_and_sandboxes_do_not(pooled: World) -> None:
    made = await pooled.create()
    await pooled.engine.stop()
    assert pooled.host.ids == {made.sandbox.id}
