"""The MCP server: a call from the client's request to the result, many clients at once, and how soon it is there."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench, Interleaved
from benchmarks.clients import CODE, RawClient, expect_output
from benchmarks.mcp_clients import McpClient, call_tool, over_http, over_stdio
from benchmarks.outcome import Result, Target, Unit
from benchmarks.process_tree import processes_of
from benchmarks.samples import Distribution, Figure
from benchmarks.serving import Server
from benchmarks.yardstick import BrokenProgramError

_POOL: Final = 4
_SAMPLES: Final = 100
_CLIENTS: Final = 20
_CALLS: Final = 5
_STARTS: Final = 10
_COLD_STARTS: Final = 3
_END_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.05
_CALL: Final = (Target(figure=Figure.MEDIAN, at_most=2),)
_FIRST: Final = (Target(figure=Figure.MEDIAN, at_most=1000, relative=False),)
_SIZES: Final = {"all": 32, "core": 6}
"""Of `tools/list`, in kB, at most."""


def measure(bench: Bench) -> list[Result]:
    """Sizes of the lists, calls over both transports, starts with and without a server."""
    with bench.serving(pool_size=_POOL) as server:
        rows = [*_sizes(server), *_calls(bench, server), _at_once(bench, server), *_starts(bench, server)]
    return [*rows, _cold_start(bench)]


def _calls(bench: Bench, server: Server) -> list[Result]:
    series = Interleaved(bench.yardstick)
    with over_stdio(server.data_dir) as stdio, over_http(server.url) as http, RawClient(server.url) as raw:
        for client in (stdio, http):
            _isolated(client)
        for _ in bench.rounds("MCP calls", _SAMPLES):
            for client in (stdio, http):
                raw.wait_for_pool(_POOL)
                series.compare()
                series.add(client.name, _isolated(client))
    return [
        Result(
            what=f"MCP over {name}: tools/call execute_code_isolated print(1), from the warm pool",
            samples=series.samples(name),
            yardstick=series.bare,
            targets=_CALL,
        )
        for name in ("stdio", "HTTP")
    ]


def _isolated(client: McpClient) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    answer = call_tool(client, "execute_code_isolated", {"code": CODE})
    took = 1000 * (time.perf_counter() - started)
    expect_output(answer["stdout"], "1\n")
    return took


def _at_once(bench: Bench, server: Server) -> Result:
    series = Interleaved(bench.yardstick)
    for _ in range(_CALLS):
        series.compare()

    def one(_: int) -> list[float]:
        with over_http(server.url) as client:
            return [_isolated(client) for _ in range(_CALLS)]

    with ThreadPoolExecutor(_CLIENTS) as pool:
        took = [milliseconds for samples in pool.map(one, range(_CLIENTS)) for milliseconds in samples]
    return Result(
        what=f"the same, {_CLIENTS} clients over HTTP at once, {_CALLS} calls each",
        samples=Distribution.of(took),
        yardstick=series.bare,
        note="a sample is a call; every one answered rightly, also those that the pool was empty for",
    )


def _starts(bench: Bench, server: Server) -> list[Result]:
    series = Interleaved(bench.yardstick)
    for _ in bench.rounds("starts of cove mcp", _STARTS):
        series.compare()
        _start(server.data_dir, series)
    return [
        Result(
            what="start of `cove mcp` -> its first answer",
            samples=series.samples("answer"),
            yardstick=series.bare,
            targets=_FIRST,
        ),
        Result(
            what="... -> its first tool result, a server is running",
            samples=series.samples("result"),
            yardstick=series.bare,
        ),
    ]


def _start(data_dir: Path, series: Interleaved) -> None:
    started = time.perf_counter()
    with over_stdio(data_dir) as client:
        client.request("server/discover")
        series.add("answer", 1000 * (time.perf_counter() - started))
        _isolated(client)
        series.add("result", 1000 * (time.perf_counter() - started))


def _cold_start(bench: Bench) -> Result:
    """Nothing runs: `cove mcp` starts a server for itself, which ends after it."""
    series = Interleaved(bench.yardstick)
    for _ in bench.rounds("cold starts of cove mcp", _COLD_STARTS):
        with bench.data_directory() as data_dir:
            series.compare()
            _start(data_dir, series)
            _wait_for_end(data_dir)
    return Result(
        what="... -> its first tool result, nothing is running yet",
        samples=series.samples("result"),
        yardstick=series.bare,
    )


def _wait_for_end(data_dir: Path) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while processes_of(data_dir):
        if time.monotonic() > deadline:
            raise BrokenProgramError("The local server did not end after its last client.")
        time.sleep(_PAUSE_SECONDS)


def _sizes(server: Server) -> list[Result]:
    rows: list[Result] = []
    for toolset, at_most in _SIZES.items():
        with over_stdio(server.data_dir, "--toolset", toolset) as client:
            size = len(client.request("tools/list")) / 1000
        target = Target(figure=Figure.WORST, at_most=at_most, relative=False)
        what = f"tools/list of the tools `{toolset}`, the whole answer"
        rows.append(Result(what=what, unit=Unit.KILOBYTES, samples=Distribution.of([size]), targets=(target,)))
    return rows
