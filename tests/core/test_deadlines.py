"""The one timer behind all deadlines."""

import asyncio
import time

import pytest
from tests.core.world import Clock, until

from cove.core.deadlines import Deadlines
from cove.models.errors import error

pytestmark = pytest.mark.anyio


def test_only_what_is_due_comes_out_once() -> None:
    clock = Clock()
    deadlines = Deadlines(clock=clock)
    for index, name in enumerate("abc"):
        deadlines.schedule(name, clock.now + index + 1)
    assert deadlines.due() == []
    clock.now += 2
    assert deadlines.due() == ["a", "b"]
    assert deadlines.due() == []


def test_deadlines_move_and_are_forgotten() -> None:
    clock = Clock()
    deadlines = Deadlines(clock=clock)
    deadlines.schedule("later", clock.now + 1)
    deadlines.schedule("later", clock.now + 10)
    deadlines.schedule("sooner", clock.now + 10)
    deadlines.schedule("sooner", clock.now + 1)
    deadlines.schedule("never", clock.now + 1)
    deadlines.schedule("never", None)
    deadlines.schedule("gone", clock.now + 1)
    deadlines.forget("gone")
    deadlines.forget("gone")
    clock.now += 5
    assert deadlines.due() == ["sooner"]
    clock.now += 5
    assert deadlines.due() == ["later"]


def test_moving_one_deadline_often_takes_no_memory() -> None:
    clock = Clock()
    deadlines = Deadlines(clock=clock)
    for index in range(10_000):
        deadlines.schedule("a", clock.now + 1000 + index)
    assert len(deadlines._heap) < 100  # pyright: ignore[reportPrivateUsage]
    clock.now += 20_000
    assert deadlines.due() == ["a"]


async def test_a_sooner_deadline_wakes_the_timer_and_failures_are_tried_again() -> None:
    deadlines = Deadlines(clock=time.time)
    calls: list[tuple[str, float]] = []

    async def expire(name: str) -> None:
        calls.append((name, time.time()))
        if len(calls) == 1:
            raise error("STORE_UNAVAILABLE", "Not now.")

    deadlines.schedule("late", time.time() + 1000)
    running = asyncio.create_task(deadlines.run(expire))
    await asyncio.sleep(0)
    due = time.time() + 0.05
    deadlines.schedule("soon", due)
    await until(lambda: len(calls) == 2)
    assert [name for name, _ in calls] == ["soon", "soon"]
    assert 0 <= calls[0][1] - due < 0.5
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
