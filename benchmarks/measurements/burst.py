"""A hundred sandboxes asked for at the same moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.bench import Bench, Interleaved
from benchmarks.clients import TEMPLATE, SdkClient, expect_output
from benchmarks.outcome import Result, Target
from benchmarks.samples import Figure
from cove import AsyncSandbox

_BURST: Final = 100
_ROUNDS: Final = 3
_LIMIT_SECONDS: Final = 120.0
_COMPARISONS: Final = 5
_TARGETS: Final = (Target(figure=Figure.WORST, at_most=2000, relative=False),)


def measure(bench: Bench) -> list[Result]:
    """Wall-clock time until the last of the burst is there, without a pool; every one must answer rightly."""
    size = bench.count(_BURST)
    creates, outputs = Interleaved(bench.yardstick), Interleaved(bench.yardstick)
    with bench.serving(pool_size=0) as server:
        SdkClient(server.url).create().kill()
        for _ in bench.rounds(f"bursts of {size} creates", _ROUNDS):
            _compare(creates)
            creates.add("wall", asyncio.run(_burst(server.url, size, with_output=False)))
            _compare(outputs)
            outputs.add("wall", asyncio.run(_burst(server.url, size, with_output=True)))
    return [
        _row(f"{size} concurrent creates, wall, SDK", creates, _TARGETS),
        _row(f"{size} concurrent creates, each with its first output, wall, SDK", outputs),
    ]


def _row(what: str, series: Interleaved, targets: tuple[Target, ...] = ()) -> Result:
    note = "a sample is a burst; every sandbox answered rightly"
    return Result(what=what, samples=series.samples("wall"), yardstick=series.bare, targets=targets, note=note)


def _compare(series: Interleaved) -> None:
    for _ in range(_COMPARISONS):
        series.compare()


async def _burst(url: str, size: int, *, with_output: bool) -> float:
    """Milliseconds until the last one is there. All are asked for output in any case, and ended."""
    sandboxes: dict[int, AsyncSandbox] = {}

    async def create(number: int) -> None:
        sandboxes[number] = await AsyncSandbox.create(TEMPLATE, base_url=url)
        if with_output:
            await _check(sandboxes[number], number)

    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            took = await _all(create, size)
            if not with_output:
                await _all(lambda number: _check(sandboxes[number], number), size)
            return took
    finally:
        await asyncio.gather(*(sandbox.kill() for sandbox in sandboxes.values()))


async def _all(work: Callable[[int], Awaitable[None]], size: int) -> float:
    """Do `work` for 0 ... `size` - 1 at once; milliseconds until all is done."""

    async def one(number: int) -> None:
        await work(number)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(size):
            group.create_task(one(number))
    return 1000 * (time.perf_counter() - started)


async def _check(sandbox: AsyncSandbox, number: int) -> None:
    expect_output((await sandbox.run_code(f"print({number})")).stdout, f"{number}\n")
