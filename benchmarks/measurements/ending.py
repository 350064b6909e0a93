"""From the request to end a sandbox until none of its processes exists."""

import time
from typing import Final

from benchmarks.bench import Bench, Interleaved
from benchmarks.clients import SdkClient, SdkTenant
from benchmarks.outcome import Result
from benchmarks.process_tree import Watch, recorded, trees
from benchmarks.serving import Server
from benchmarks.yardstick import BrokenProgramError

_SAMPLES: Final = 30
_SECONDS: Final = 10.0
_LEAVE_CHILDREN: Final = "import subprocess; children = [subprocess.Popen(['sleep', '600']) for _ in range(3)]"
_FEWEST: Final = 4


def measure(bench: Bench) -> list[Result]:
    """Sandboxes with an interpreter and three child processes are deleted."""
    series = Interleaved(bench.yardstick)
    with bench.serving(pool_size=0) as server:
        client = SdkClient(server.url)
        client.create().kill()
        for _ in bench.rounds("kill", _SAMPLES):
            tenant = client.create()
            tenant.sandbox.run_code(_LEAVE_CHILDREN)
            series.compare()
            _end(server, tenant, series)
    return [
        _row("kill: DELETE -> answered and all processes gone, SDK", "gone", series),
        _row("... of which until the answer", "answered", series),
    ]


def _row(what: str, part: str, series: Interleaved) -> Result:
    return Result(what=what, samples=series.samples(part), yardstick=series.bare)


def _end(server: Server, tenant: SdkTenant, series: Interleaved) -> None:
    first = recorded(server.data_dir)[tenant.sandbox.sandbox_id]
    with Watch(trees([first.pid])[first.pid]) as watch:
        if len(watch) < _FEWEST:
            raise BrokenProgramError(f"the sandbox has {len(watch)} processes, not at least {_FEWEST}")
        started = time.perf_counter()
        tenant.kill()
        answered = time.perf_counter()
        if not watch.wait(_SECONDS):
            raise BrokenProgramError(f"processes of a killed sandbox run on after {_SECONDS:.0f} s")
        gone = time.perf_counter()
    series.add("answered", 1000 * (answered - started))
    series.add("gone", 1000 * (gone - started))
