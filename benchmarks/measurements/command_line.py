"""`cove run` with no server: a process that starts everything, runs one program and ends everything."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench, Interleaved
from benchmarks.clients import CODE
from benchmarks.outcome import Result, Target
from benchmarks.samples import Figure
from benchmarks.serving import clean_environment
from benchmarks.yardstick import run_program

_SAMPLES: Final = 10
_SECONDS: Final = 60.0
_TARGETS: Final = (Target(figure=Figure.MEDIAN, at_most=400, relative=False),)
_SUM: Final = "in all"
_STEP: Final = re.compile(r"^ *(\d+\.\d+) ms  (.+)$", re.MULTILINE)


def measure(bench: Bench) -> list[Result]:
    """The whole command, from its start to its end."""
    series = Interleaved(bench.yardstick)
    with bench.data_directory() as data_dir:
        command = (*_cove(), "run", "--data-dir", str(data_dir))
        run_program((*command, CODE), environment=clean_environment())
        for _ in bench.rounds("cove run", _SAMPLES):
            series.compare()
            series.add("run", run_program((*command, CODE), environment=clean_environment()))
        steps = _steps((*command, "--timings", CODE))
    return [
        Result(
            what="cove run 'print(1)', everything cold, the whole command",
            samples=series.samples("run"),
            yardstick=series.bare,
            targets=_TARGETS,
            breakdown=steps,
        )
    ]


def _cove() -> tuple[str, ...]:
    """The installed command, as a user calls it."""
    script = Path(sys.executable).with_name("cove")
    return (str(script),) if script.exists() else (sys.executable, "-m", "cove.cli.main")


def _steps(command: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=clean_environment()
    )
    return tuple((name, float(took)) for took, name in _STEP.findall(done.stderr) if name != _SUM)
