"""Store and host come to agree again, whatever happened to either."""

import asyncio
import time

import pytest
from tests.core.world import ALICE, World, until

from cove.models.errors import CoveError
from cove.models.hosts import HostState, SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.sandboxes import EndReason, SandboxStatus

pytestmark = pytest.mark.anyio


async def test_sandboxes_outlive_the_server(world: World) -> None:
    made = await world.create(timeout_seconds=60)
    await world.restart()
    assert len(world.engine.directory) == 0
    await world.engine.reconciler.reconcile()
    assert world.engine.directory.socket_of(made.sandbox.id) is not None
    assert await world.rows() == {made.sandbox.id: made.sandbox}
    world.clock.now += 61
    assert world.engine.deadlines.due() == [made.sandbox.id]


async def test_a_row_without_a_sandbox_has_crashed(world: World) -> None:
    made = await world.create()
    world.host.crash(made.sandbox.id)
    await world.engine.reconciler.reconcile()
    row = await world.row(made.sandbox.id)
    assert row is not None
    assert (row.status, row.end_reason) == (SandboxStatus.DELETED, EndReason.CRASHED)
    assert len(world.engine.directory) == 0


async def test_a_dead_record_is_removed_too(world: World) -> None:
    made = await world.create()
    world.host.driver.update(made.sandbox.id, state=HostState.DEAD)
    await world.engine.reconciler.reconcile()
    assert await world.rows() == {}
    assert world.host.ids == set()


async def test_what_the_host_ended_at_its_deadline_has_expired(world: World) -> None:
    made = await world.create(timeout_seconds=60)
    world.clock.now += 60.5
    world.host.crash(made.sandbox.id)
    await world.engine.reconciler.reconcile()
    with pytest.raises(CoveError, match=r"it expired at .* after its timeout of 60 s"):
        await world.engine.lifecycle.get(ALICE, made.sandbox.id)


async def test_deadlines_that_passed_while_the_server_was_down(world: World) -> None:
    await world.create(timeout_seconds=60)
    await world.restart()
    world.clock.now += 100
    await world.engine.reconciler.reconcile()
    assert world.host.ids == set()
    assert await world.rows() == {}


async def test_a_sandbox_without_a_row_is_destroyed(world: World) -> None:
    await world.host.create(SandboxSpec(sandbox_id=new_sandbox_id(), template="base"))
    await world.host.create(SandboxSpec(sandbox_id=new_sandbox_id(), template="base", pooled=True))
    await world.engine.reconciler.reconcile()
    assert world.host.ids == set()


async def test_a_create_under_way_is_no_orphan(world: World) -> None:
    release = asyncio.Event()
    create = world.host.driver.create

    async def slow(*arguments: object) -> object:
        record = await create(*arguments)  # type: ignore[arg-type]
        await release.wait()
        return record

    world.host.driver.create = slow  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(world.create())
    await until(lambda: bool(world.host.ids))
    await world.engine.reconciler.reconcile()
    assert len(world.host.ids) == 1
    release.set()
    made = await task
    await world.engine.reconciler.reconcile()
    assert world.host.ids == {made.sandbox.id}


async def test_the_pool_of_an_earlier_server_is_taken_over(world: World) -> None:
    world.pool_size = 2
    await world.restart()
    await world.engine.start()
    await until(lambda: world.engine.pool.sizes() == {"code-interpreter": 2})
    first = world.host.members()
    old = world.engine
    world.engine = world._engine()  # pyright: ignore[reportPrivateUsage]
    await old._background.close(grace_seconds=0.1)  # pyright: ignore[reportPrivateUsage]
    await world.engine.start()
    await until(lambda: world.engine.pool.sizes() == {"code-interpreter": 2})
    assert world.host.members() == first


async def test_states_and_deadlines_are_made_to_agree(world: World) -> None:
    made = await world.create(timeout_seconds=60)
    await world.host.pause(made.sandbox.id)
    await world.host.set_deadline(made.sandbox.id, 5.0)
    await world.engine.reconciler.reconcile()
    row = await world.row(made.sandbox.id)
    assert row is not None
    assert row.status is SandboxStatus.PAUSED
    assert world.host.driver.sandboxes[made.sandbox.id].record.deadline == row.deadline == made.sandbox.deadline


async def test_stopped_sandboxes_are_adopted_and_one_without_its_disk_has_crashed(world: World) -> None:
    kept, lost = (await world.create()).sandbox, (await world.create()).sandbox
    for one in (kept, lost):
        await world.engine.lifecycle.stop(ALICE, one.id)
    world.host.crash(lost.id)  # as a host forgets it whose disk is gone
    await world.restart()
    await world.engine.reconciler.reconcile()
    assert world.engine.directory.ids() == frozenset({kept.id})
    assert world.engine.directory.state_of(kept.id) is SandboxStatus.STOPPED
    row = await world.row(lost.id)
    assert row is not None
    assert row.end_reason is EndReason.CRASHED
    assert (await world.engine.lifecycle.start(ALICE, kept.id)).status is SandboxStatus.RUNNING


async def test_a_crash_is_heard_of_at_once(world: World) -> None:
    world.engine.reconciler._interval = 1000.0  # pyright: ignore[reportPrivateUsage]
    await world.engine.start()
    made = [(await world.create()).sandbox.id for _ in range(20)]
    lasting = (await world.create()).sandbox.id
    await until(lambda: "changes" in world.host.calls)
    started = time.monotonic()
    for each in made:
        world.host.crash(each)
    await until(lambda: world.engine.directory.ids() == frozenset({lasting}), seconds=2.0)
    assert time.monotonic() - started < 1.0
    row = await world.row(made[0])
    assert row is not None
    assert row.end_reason is EndReason.CRASHED


async def test_an_end_at_the_deadline_that_the_host_tells_of_has_expired(world: World) -> None:
    made = (await world.create(timeout_seconds=60)).sandbox
    world.clock.now += 60.5
    world.host.crash(made.id)
    await world.engine.reconciler.hear([made.id, new_sandbox_id()])
    row = await world.row(made.id)
    assert row is not None
    assert row.end_reason is EndReason.EXPIRED


async def test_the_limit_that_ended_a_sandbox_is_told(world: World) -> None:
    made = (await world.create()).sandbox
    world.host.crash(made.id)
    await world.engine.reconciler.hear([made.id], {made.id: "memory 512 MiB" + "!" * 100, "other": "disk 1 MiB"})
    with pytest.raises(CoveError) as caught:
        await world.engine.lifecycle.get(ALICE, made.id)
    told = caught.value.details["limit"]
    assert (told.rstrip("!"), len(told)) == ("memory 512 MiB", 64)
    assert "memory 512 MiB" in caught.value.message
    assert caught.value.details["end_reason"] == "crashed"


async def test_a_host_that_was_away_is_compared_as_soon_as_it_is_back(world: World) -> None:
    world.engine.reconciler._interval = 1000.0  # pyright: ignore[reportPrivateUsage]
    made = (await world.create()).sandbox.id
    world.host.down = True
    await world.engine.start()
    lists = world.host.calls.count("list")
    world.host.down = False
    await until(lambda: world.host.calls.count("list") > lists)
    world.host.crash(made)
    await until(lambda: len(world.engine.directory) == 0, seconds=3.0)


async def test_a_sandbox_that_is_being_changed_keeps_no_other_waiting(world: World) -> None:
    changing, lost = (await world.create()).sandbox, (await world.create()).sandbox
    world.host.driver.gate.clear()
    await world.engine.lifecycle.stop(ALICE, changing.id)
    starting = asyncio.create_task(world.engine.lifecycle.start(ALICE, changing.id))
    await until(lambda: "start" in world.host.calls)
    world.engine.directory.remove(changing.id)
    world.host.crash(lost.id)
    async with asyncio.timeout(5):
        await world.engine.reconciler.reconcile()
    assert (await world.rows()).keys() == {changing.id}
    world.host.driver.gate.set()
    assert (await starting).status is SandboxStatus.RUNNING
    await world.engine.reconciler.reconcile()
    assert world.engine.directory.state_of(changing.id) is SandboxStatus.RUNNING


async def test_a_host_that_is_away_loses_nobody(world: World) -> None:
    made = await world.create()
    world.host.down = True
    await world.engine.reconciler.try_pass()
    await world.engine.reconciler.try_pass()
    assert not world.engine.reconciler.host_answers
    assert await world.rows() == {made.sandbox.id: made.sandbox}
    world.host.down = False
    await world.engine.reconciler.try_pass()
    assert world.engine.reconciler.host_answers


async def test_one_that_cannot_be_destroyed_does_not_stop_the_others(world: World) -> None:
    made = [(await world.create()).sandbox.id for _ in range(3)]
    for each in made[:2]:
        world.host.crash(each)
    world.host.refuse_destroy = True
    await world.engine.reconciler.reconcile()
    assert (await world.rows()).keys() == {made[2]}


async def test_what_another_process_ended_is_forgotten(world: World) -> None:
    made = await world.create()
    await world.store.write(lambda unit: unit.sandboxes.end(made.sandbox.id, reason=EndReason.KILLED, at=1.0))
    await world.engine.reconciler.reconcile()
    assert world.engine.directory.socket_of(made.sandbox.id) is None
    assert world.host.ids == set()


async def test_an_expired_sandbox_is_gone_soon_after_its_deadline(world: World) -> None:
    world.clock.now = time.time()
    await world.engine.start()
    made = [(await world.create(timeout_seconds=1)).sandbox.id for _ in range(20)]
    world.clock.now += 0.9
    started = time.monotonic()
    offset = world.clock.now - started
    tick = asyncio.create_task(_follow(world, offset))
    try:
        await until(lambda: not world.host.ids, seconds=5.0)
    finally:
        tick.cancel()
    assert time.monotonic() - started < 2.1
    row = await world.row(made[0])
    assert row is not None
    assert row.end_reason is EndReason.EXPIRED


async def _follow(world: World, offset: float) -> None:
    while True:
        world.clock.now = time.monotonic() + offset
        await asyncio.sleep(0.005)
