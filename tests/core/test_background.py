"""Work that outlives its caller, and locks by key."""

import asyncio

import pytest
from tests.core.world import until

from cove.core.background import Background
from cove.core.locks import KeyedLocks
from cove.models.errors import CoveError

pytestmark = pytest.mark.anyio


async def test_work_goes_on_when_its_caller_is_cancelled_and_is_undone() -> None:
    background = Background()
    go, undone = asyncio.Event(), list[int]()

    async def work() -> int:
        await go.wait()
        return 7

    async def undo(result: int) -> None:
        undone.append(result)

    caller = asyncio.create_task(background.finish(work(), name="w", abandoned=undo))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go.set()
    await until(lambda: undone == [7])
    await background.close(grace_seconds=1)


async def test_results_and_failures_reach_a_caller_that_stays() -> None:
    background = Background()

    async def good() -> int:
        return 1

    async def bad() -> int:
        raise ValueError("no")

    assert await background.finish(good(), name="g") == 1
    with pytest.raises(ValueError, match="no"):
        await background.finish(bad(), name="b")
    await background.close(grace_seconds=1)


async def test_loops_start_again_when_they_fail_and_end_at_once() -> None:
    background = Background()
    starts: list[int] = []

    async def loop() -> None:
        starts.append(1)
        if len(starts) == 1:
            raise RuntimeError("once")
        await asyncio.Event().wait()

    background.keep(loop, name="loop")
    await until(lambda: len(starts) == 2)
    async with asyncio.timeout(1):
        await background.close(grace_seconds=10)


async def test_close_waits_for_work_and_cancels_what_takes_too_long() -> None:
    background = Background()
    done: list[str] = []

    async def short() -> None:
        await asyncio.sleep(0.01)
        done.append("short")

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            done.append("cancelled")

    background.spawn(short(), name="short")
    background.spawn(endless(), name="endless")
    await background.close(grace_seconds=0.1)
    assert done == ["short", "cancelled"]


async def test_one_at_a_time_for_each_key() -> None:
    locks = KeyedLocks(wait_seconds=1)
    inside: dict[str, int] = {"a": 0, "b": 0}
    most = 0

    async def enter(key: str) -> None:
        nonlocal most
        async with locks.hold(key):
            inside[key] += 1
            assert inside[key] == 1
            most = max(most, sum(inside.values()))
            await asyncio.sleep(0)
            inside[key] -= 1

    await asyncio.gather(*(enter(key) for key in "ab" * 10))
    assert most == 2
    assert not locks._entries  # pyright: ignore[reportPrivateUsage]


async def test_waits_for_a_key_are_bounded_and_leave_nothing() -> None:
    locks = KeyedLocks(wait_seconds=0.02)
    async with locks.hold("a"):
        with pytest.raises(CoveError) as caught:
            async with locks.hold("a"):
                pass
        assert caught.value.code == "TIMEOUT"
    async with locks.hold("a"):
        pass
    assert not locks._entries  # pyright: ignore[reportPrivateUsage]
