"""Programs and commands in a sandbox that runs already."""

import time
from collections.abc import Callable
from typing import Final

from benchmarks.bench import Bench, Interleaved
from benchmarks.clients import RawClient, SdkClient, expect_output
from benchmarks.outcome import Result, Target
from benchmarks.samples import Figure

_SAMPLES: Final = 500
_COMMANDS: Final = 100
_BETWEEN_COMPARISONS: Final = 5
_TARGETS: Final = (Target(figure=Figure.MEDIAN, at_most=0.25), Target(figure=Figure.P99, at_most=1.5))


def measure(bench: Bench) -> list[Result]:
    """`run_code` with both clients, and `commands.run` of a shell command and of Node."""
    with bench.serving(pool_size=0) as server, RawClient(server.url) as raw:
        sdk_tenant, raw_tenant = SdkClient(server.url).create(), raw.create()
        commands = sdk_tenant.sandbox.commands
        return [
            _timed(bench, "run_code('print(1)') in a running sandbox, SDK", _SAMPLES, sdk_tenant.run_code, _TARGETS),
            _timed(bench, "the same, raw HTTP", _SAMPLES, raw_tenant.run_code, _TARGETS),
            _timed(bench, "commands.run('true'), SDK", _COMMANDS, lambda: _succeeds(commands.run("true").exit_code)),
            _timed(
                bench, "commands.run('node -v'), SDK", _COMMANDS, lambda: _succeeds(commands.run("node -v").exit_code)
            ),
        ]


def _timed(bench: Bench, what: str, samples: int, call: Callable[[], None], targets: tuple[Target, ...] = ()) -> Result:
    call()
    series = Interleaved(bench.yardstick)
    for number in bench.rounds(what, samples):
        if number % _BETWEEN_COMPARISONS == 0:
            series.compare()
        started = time.perf_counter()
        call()
        series.add(what, 1000 * (time.perf_counter() - started))
    return Result(what=what, samples=series.samples(what), yardstick=series.bare, targets=targets)


def _succeeds(exit_code: int) -> None:
    expect_output(str(exit_code), "0")
