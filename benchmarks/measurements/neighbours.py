"""Programs in one sandbox while another one floods the machine, as far as its limits let it."""

import time
from typing import Final

from benchmarks.bench import Bench
from benchmarks.clients import TEMPLATE, SdkClient, SdkTenant
from benchmarks.outcome import Result, Target
from benchmarks.samples import Distribution, Figure
from benchmarks.serving import Server
from cove import Sandbox

_AT_MOST: Final = 3.0
_FLOOD_SECONDS: Final = 3.0
_QUIET_SAMPLES: Final = 200
_PAUSE_SECONDS: Final = 0.005
"""Between samples: a client that asks without a pause would be a flood of its own."""

_HEAD: Final = f"import os, sys, time\nend = time.monotonic() + {3 * _FLOOD_SECONDS}\n"
_FLOODS: Final = {
    "processes": """
while time.monotonic() < end:
    try:
        if not os.fork():
            time.sleep(0.5)
            os._exit(0)
    except OSError:
        pass
""",
    "memory": """
while time.monotonic() < end:
    if not os.fork():
        kept = []
        while time.monotonic() < end:
            kept.append(b"x" * (8 << 20))
    os.wait()
""",
    "disk": """
while time.monotonic() < end:
    try:
        with open("/workspace/flood", "wb", buffering=0) as file:
            while time.monotonic() < end:
                file.write(b"x" * (1 << 20))
    except OSError:
        pass
""",
    "output": """
while time.monotonic() < end:
    os.write(1, b"x" * (1 << 16))
""",
    "processor": """
for _ in range(8):
    if not os.fork():
        while time.monotonic() < end:
            pass
        os._exit(0)
time.sleep(end - time.monotonic())
""",
}


def measure(bench: Bench) -> list[Result]:
    """`run_code` of a sandbox that is left alone, and while another floods; the median of both kinds, and a bound for
    the 95th percentile: three times that of the quiet samples, which are taken just before."""
    with bench.serving(pool_size=0) as server:
        victim = SdkClient(server.url).create()
        victim.run_code()
        return [
            _beside(bench, server, victim, flood) for flood in bench.progress.track(_FLOODS, description="neighbours")
        ]


def _beside(bench: Bench, server: Server, victim: SdkTenant, flood: str) -> Result:
    flooder = Sandbox.create(TEMPLATE, base_url=server.url)
    try:
        flooder.files.write("/tmp/flood.py", _HEAD + _FLOODS[flood])
        quiet = Distribution.of([_timed(victim) for _ in range(bench.count(_QUIET_SAMPLES))])
        flooder.commands.run("python3 /tmp/flood.py", background=True, timeout=3 * _FLOOD_SECONDS)
        _timed(victim)
        loaded = Distribution.of(_samples(victim))
    finally:
        flooder.kill()
    bound = _AT_MOST * quiet.p95
    return Result(
        what=f"run_code('print(1)') beside a flood: {flood}",
        samples=loaded,
        targets=(Target(figure=Figure.P95, at_most=round(bound, 2), relative=False),),
        note=f"the bound is {_AT_MOST:g} times the p95 of {quiet.count} quiet samples just before ({quiet.p95:.2f} ms;"
        f" median {quiet.median:.2f} ms)",
    )


def _samples(victim: SdkTenant) -> list[float]:
    deadline = time.monotonic() + _FLOOD_SECONDS
    found: list[float] = []
    while time.monotonic() < deadline:
        found.append(_timed(victim))
    return found


def _timed(victim: SdkTenant) -> float:
    time.sleep(_PAUSE_SECONDS)
    started = time.perf_counter()
    victim.run_code()
    return 1000 * (time.perf_counter() - started)
