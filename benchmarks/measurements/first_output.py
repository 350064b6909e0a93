"""From the request for a sandbox to the first output of a program in it, through REST on loopback."""

import time
from dataclasses import replace
from typing import Final

from benchmarks.bench import Bench, Interleaved
from benchmarks.clients import Client, RawClient, SdkClient, expect_output
from benchmarks.outcome import Result, Target
from benchmarks.samples import Figure
from benchmarks.serving import Server

_SAMPLES: Final = 100
_NODE_SAMPLES: Final = 30
_POOL: Final = 4
_P99: Final = Target(figure=Figure.P99, at_most=5)
_COLD: Final = (Target(figure=Figure.MEDIAN, at_most=2), _P99)
_POOLED: Final = (Target(figure=Figure.MEDIAN, at_most=0.8), _P99)


def measure_cold(bench: Bench) -> list[Result]:
    """Every sandbox is forked from the template's warm process when it is asked for."""
    with bench.serving(pool_size=0) as server, RawClient(server.url) as raw:
        rows = _both_clients(bench, server, raw, how="cold from template", targets=_COLD)
        return [*rows, _node_version(bench, SdkClient(server.url))]


def measure_pooled(bench: Bench) -> list[Result]:
    """Every sandbox comes from the warm pool, which is full before each sample."""
    with bench.serving(pool_size=_POOL) as server, RawClient(server.url) as raw:
        raw.wait_for_pool(_POOL)
        before = _from_pool(raw)
        rows = _both_clients(bench, server, raw, how="from the warm pool", targets=_POOLED, pool=_POOL)
        # What the warming-up takes counts too: one sandbox a client.
        expected = 2 * (bench.count(_SAMPLES) + 1)
        if (hits := int(_from_pool(raw) - before)) != expected:
            rows[0] = _with_note(rows[0], f"only {hits} of {expected} sandboxes came from the pool")
        return rows


def _both_clients(
    bench: Bench, server: Server, raw: RawClient, *, how: str, targets: tuple[Target, ...], pool: int = 0
) -> list[Result]:
    clients: tuple[Client, ...] = (SdkClient(server.url), raw)
    for client in clients:
        _first_output(client, Interleaved(bench.yardstick))
    series = Interleaved(bench.yardstick)
    for _ in bench.rounds(f"create and first output, {how}", _SAMPLES):
        for client in clients:
            raw.wait_for_pool(pool)
            series.compare()
            _first_output(client, series)
    return [row for client in clients for row in _rows(series, client.name, how, targets)]


def _first_output(client: Client, series: Interleaved) -> None:
    started = time.perf_counter()
    tenant = client.create()
    created = time.perf_counter()
    tenant.run_code()
    done = time.perf_counter()
    tenant.kill()
    series.add(f"{client.name} all", 1000 * (done - started))
    series.add(f"{client.name} create", 1000 * (created - started))
    series.add(f"{client.name} output", 1000 * (done - created))


def _rows(series: Interleaved, client: str, how: str, targets: tuple[Target, ...]) -> list[Result]:
    def row(part: str, what: str, promised: tuple[Target, ...] = ()) -> Result:
        samples = series.samples(f"{client} {part}")
        return Result(what=what, samples=samples, yardstick=series.bare, targets=promised)

    return [
        row("all", f"create -> first Python output, {how}, {client}", targets),
        row("create", "... of which the create"),
        row("output", "... of which the first run_code"),
    ]


def _node_version(bench: Bench, client: SdkClient) -> Result:
    series = Interleaved(bench.yardstick)
    for _ in bench.rounds("create and node -v", _NODE_SAMPLES):
        series.compare()
        started = time.perf_counter()
        with client.create().sandbox as sandbox:
            output = sandbox.commands.run("node -v").stdout
            series.add("node", 1000 * (time.perf_counter() - started))
        expect_output(output[:1], "v")
    return Result(
        what="create -> output of the command `node -v`, cold from template, SDK",
        samples=series.samples("node"),
        yardstick=series.bare,
    )


def _from_pool(raw: RawClient) -> float:
    return raw.metric('cove_sandbox_create_seconds_count{source="pool"}')


def _with_note(row: Result, note: str) -> Result:
    return replace(row, note=note)
