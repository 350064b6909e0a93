"""Sandboxes with a kernel of their own (gVisor): from the request to the first output, programs, refilling, memory."""

import os
import time
from collections.abc import Callable
from typing import Final

from benchmarks.bench import Bench, Interleaved
from benchmarks.clients import Client, RawClient, SdkClient
from benchmarks.outcome import Result, Target, Unit
from benchmarks.process_tree import charged_bytes
from benchmarks.samples import Distribution, Figure
from cove.drivers.gvisor.runsc import find_runsc
from cove.models.errors import CoveError

_SAMPLES: Final = 30
_COLD_SAMPLES: Final = 15
_PROGRAMS: Final = 200
_IDLE: Final = 5
_POOL: Final = 3
_QUIET_SECONDS: Final = 1.0
_POOLED: Final = (Target(figure=Figure.MEDIAN, at_most=1.5),)
_MEMORY: Final = (Target(figure=Figure.MEDIAN, at_most=40, relative=False),)
_MB: Final = 1e6


def measure(bench: Bench) -> list[Result]:
    """All of it, or one row that says why there is nothing to be measured."""
    why = _missing()
    if why:
        return [Result(what="gVisor", note=why)]
    return [*_pooled(bench), *_cold(bench), *_idle(bench)]


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root"
    try:
        find_runsc()
    except CoveError as problem:
        return problem.message
    return ""


def _pooled(bench: Bench) -> list[Result]:
    with bench.serving(pool_size=_POOL, isolation="gvisor") as server, RawClient(server.url) as raw:
        client = SdkClient(server.url)
        series = Interleaved(bench.yardstick)
        for _ in bench.rounds("gVisor: create and first output, from the warm pool", _SAMPLES):
            raw.wait_for_pool(_POOL)
            time.sleep(_QUIET_SECONDS)  # what keeps the pool full has filled its own shelf then, too
            series.compare()
            _first_output(client, series)
            _timed(series, "refill", lambda: raw.wait_for_pool(_POOL))
        tenant = client.create()
        tenant.run_code()
        programs = Interleaved(bench.yardstick)
        for number in bench.rounds("gVisor: run_code", _PROGRAMS):
            if number % 5 == 0:
                programs.compare()
            _timed(programs, "run", tenant.run_code)
    return [
        _row(series, "output", "gVisor: create -> first Python output, from the warm pool, SDK", _POOLED),
        _row(series, "refill", "... until the pool is full again, in the background"),
        _row(programs, "run", "gVisor: run_code('print(1)') in a running sandbox, SDK"),
    ]


def _cold(bench: Bench) -> list[Result]:
    """One after the other: what the host keeps ready ahead is used up by the first few, which do not count."""
    with bench.serving(pool_size=0, isolation="gvisor") as server:
        client = SdkClient(server.url)
        for _ in range(3):
            _first_output(client, Interleaved(bench.yardstick))
        series = Interleaved(bench.yardstick)
        for _ in bench.rounds("gVisor: create and first output, from the checkpoint", _COLD_SAMPLES):
            series.compare()
            _first_output(client, series)
    return [_row(series, "output", "gVisor: create -> first Python output, no pool, SDK")]


def _idle(bench: Bench) -> list[Result]:
    return [
        _idle_row(bench, "base", "gVisor: idle sandbox of `base`, nothing executed", _MEMORY),
        _idle_row(bench, "code-interpreter", "gVisor: idle sandbox of `code-interpreter`, nothing executed"),
    ]


def _idle_row(bench: Bench, template: str, what: str, targets: tuple[Target, ...] = ()) -> Result:
    with bench.serving(pool_size=0, isolation="gvisor") as server:
        client = SdkClient(server.url, template=template)
        tenants = [client.create() for _ in bench.rounds(what, _IDLE)]
        time.sleep(_QUIET_SECONDS)
        samples = [charged / _MB for charged in charged_bytes(server.data_dir).values()]
        for tenant in tenants:
            tenant.kill()
    return Result(what=what, unit=Unit.MEGABYTES, samples=Distribution.of(samples), targets=targets)


def _first_output(client: Client, series: Interleaved) -> None:
    started = time.perf_counter()
    tenant = client.create()
    tenant.run_code()
    series.add("output", 1000 * (time.perf_counter() - started))
    tenant.kill()


def _timed(series: Interleaved, name: str, call: Callable[[], None]) -> None:
    started = time.perf_counter()
    call()
    series.add(name, 1000 * (time.perf_counter() - started))


def _row(series: Interleaved, name: str, what: str, targets: tuple[Target, ...] = ()) -> Result:
    return Result(what=what, samples=series.samples(name), yardstick=series.bare, targets=targets)
