"""The same `print(1)` through other tools, where they are installed and work."""

import os
import shutil
import subprocess
from typing import Final

from benchmarks.bench import Bench, Interleaved
from benchmarks.outcome import Result
from benchmarks.yardstick import COMMAND, BrokenProgramError, run_program

_SAMPLES: Final = 20
_SECONDS: Final = 20.0


def measure(bench: Bench) -> list[Result]:
    """bubblewrap, Docker and gVisor: each process starts, prints and ends."""
    return [_bubblewrap(bench), _docker(bench), _gvisor(bench)]


def _bubblewrap(bench: Bench) -> Result:
    return _row(bench, "bwrap", ("--ro-bind", "/", "/", "--unshare-all", *COMMAND))


def _docker(bench: Bench) -> Result:
    images = _docker_images()
    if isinstance(images, str):
        return Result(what="docker run", note=images)
    if not images:
        return Result(what="docker run", note="not measured: no image of Python here (`docker pull python:3-slim`)")
    return _row(bench, "docker", ("run", "--rm", "--network", "none", images[0], *("python3", *COMMAND[1:])))


def _docker_images() -> list[str] | str:
    """Images of Python that are on this machine; or why there are none to look for."""
    if shutil.which("docker") is None:
        return "not installed"
    listing = ("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=python")
    try:
        done = subprocess.run(listing, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"installed, but does not answer: {problem}"
    if done.returncode != 0:
        return "installed, but its daemon does not run"
    return [name for name in done.stdout.split() if not name.endswith(":<none>")]


def _gvisor(bench: Bench) -> Result:
    return _row(bench, "runsc", ("--network=none", "--ignore-cgroups", "do", *COMMAND))


def _row(bench: Bench, tool: str, arguments: tuple[str, ...]) -> Result:
    what = " ".join(word for word in (tool, *arguments) if word not in COMMAND) + f" ... {COMMAND[-1]}"
    found = shutil.which(tool)
    if found is None:
        return Result(what=what, note="not installed")
    series, environment = Interleaved(bench.yardstick), {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}
    try:
        run_program((found, *arguments), environment=environment)
        for _ in bench.rounds(tool, _SAMPLES):
            series.compare()
            series.add(tool, run_program((found, *arguments), environment=environment))
    except BrokenProgramError as problem:
        return Result(what=what, note=f"installed, but does not work here: {problem}")
    return Result(what=what, samples=series.samples(tool), yardstick=series.bare)
