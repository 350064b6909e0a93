"""The yardstick: how long a bare interpreter takes to start, print and end, on this machine, now."""

import subprocess
import time
from typing import Final

COMMAND: Final = ("/usr/bin/python3", "-c", "print(1)")
OUTPUT: Final = b"1\n"
_SECONDS: Final = 30.0


class BrokenProgramError(Exception):
    """A program that is measured did not do what it is measured for."""


def run_program(command: tuple[str, ...], *, expect: bytes = OUTPUT, environment: dict[str, str]) -> float:
    """Start `command`, read its output, wait for its end.

    Returns:
        Milliseconds.

    Raises:
        BrokenProgramError: another output than `expect`, another exit code than 0, or no end within 30 s.
    """
    started = time.perf_counter()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise BrokenProgramError(str(problem)) from problem
    took = 1000 * (time.perf_counter() - started)
    if done.returncode != 0 or done.stdout != expect:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise BrokenProgramError(f"{command[0]} ended with {done.returncode}: {last[:200]}")
    return took


class Yardstick:
    """Takes samples of the bare interpreter and keeps all of them."""

    def __init__(self) -> None:
        self.samples: list[float] = []

    def sample(self) -> float:
        """Start `/usr/bin/python3 -c 'print(1)'` read its output, wait for its end; milliseconds."""
        # Nothing of ours in its environment: a PYTHONPATH, say, would make it slower and us look better.
        took = run_program(COMMAND, environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
        self.samples.append(took)
        return took
