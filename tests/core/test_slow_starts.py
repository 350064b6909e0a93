"""A slow start takes nothing of a sandbox's timeout."""

import asyncio

import pytest
from tests.core.world import World, until

from cove.models.errors import CoveError

pytestmark = pytest.mark.anyio


async def start_slowly(world: World, *, timeout_seconds: int, seconds: float) -> "asyncio.Task[float | None]":
    """A create during which `seconds` go by; its result is the deadline that was promised."""

    async def create() -> float | None:
        return (await world.create(timeout_seconds=timeout_seconds)).sandbox.deadline

    world.host.driver.gate.clear()
    creating = asyncio.create_task(create())
    await until(lambda: "create" in world.host.calls)
    world.clock.now += seconds
    world.host.driver.gate.set()
    return creating


async def test_the_timeout_counts_from_the_time_it_runs(world: World) -> None:
    deadline = await (await start_slowly(world, timeout_seconds=60, seconds=5))
    assert deadline == world.clock.now + 60
    (sandbox_id,) = world.host.ids
    assert world.host.driver.sandboxes[sandbox_id].record.deadline == deadline


async def test_no_timeout_stays_none(world: World) -> None:
    assert await (await start_slowly(world, timeout_seconds=0, seconds=5)) is None
    assert "set_deadline" not in world.host.calls


async def test_a_quick_start_costs_no_further_call(world: World) -> None:
    await world.create(timeout_seconds=60)
    assert "set_deadline" not in world.host.calls


async def test_one_that_the_host_ended_meanwhile_is_a_timeout(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    set_deadline = world.host.set_deadline

    async def ended(sandbox_id: str, deadline: float | None) -> None:
        world.host.crash(sandbox_id)
        await set_deadline(sandbox_id, deadline)

    monkeypatch.setattr(world.host, "set_deadline", ended)
    with pytest.raises(CoveError) as raised:
        await (await start_slowly(world, timeout_seconds=1, seconds=5))
    assert raised.value.code == "TIMEOUT"
    assert world.host.ids == set()
    assert await world.rows() == {}
