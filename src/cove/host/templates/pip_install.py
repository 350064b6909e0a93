"""Installing Python packages with pip, as the user has configured it: the index is the user's choice."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from cove.host.templates.interpreter import Interpreter
from cove.host.templates.layers import StepReporter
from cove.models.errors import CoveError, error

INSTALL_TIMEOUT = 1800.0
TICK = 0.5
KEPT_LINES = 30
_LINE_LIMIT = 2000
_UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|Max retries exceeded|name resolution|Name or service not known"
    r"|ProxyError|Connection refused|No route to host|Network is unreachable|Read timed out|Could not fetch URL"
    r"|SSLError|ConnectionResetError|Connection to \S+ timed out"
)
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
# Where pip puts things is decided here; everything else of the user's configuration stays in force.
_PLACEMENT = (
    *("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_PYTHON"),
    "PIP_PROGRESS_BAR",
)


def install(
    interpreter: Interpreter,
    requirements: Sequence[str],
    placement: Sequence[str],
    *,
    landing: Path,
    report: StepReporter,
    timeout: float = INSTALL_TIMEOUT,
) -> dict[str, str]:
    """Install wheels (source distributions are never built, so nothing of a package is run).

    Args:
        placement: pip's options that say where: `--root X` or `--target X`.
        landing: the directory in which packages appear, watched for progress.
        timeout: seconds for everything.

    Returns:
        name -> version of all that was installed.

    Raises:
        CoveError: TEMPLATE_BUILD_FAILED, NETWORK_ERROR (index unreachable), DISK_FULL.
    """
    command = [
        sys.executable, "-P", "-m", "pip", "--python", interpreter.executable, "install", *placement,
        "--ignore-installed", "--no-compile", "--no-warn-script-location", "--only-binary=:all:", "--no-user",
        "--progress-bar=off", "--no-color", "--no-input", "--disable-pip-version-check", *requirements,
    ]  # fmt: skip
    environment = {
        name: value for name, value in os.environ.items() if name not in _PLACEMENT and not name.startswith("PYTHON")
    }
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    output = _PipOutput(len(requirements), landing, report)
    try:
        _follow(process, output, time.monotonic() + timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if process.returncode != 0:
        raise explain(output.tail())
    return installed(landing)


def installed(directory: Path) -> dict[str, str]:
    """Name -> version of the distributions in a directory of packages."""
    found = {one.name: one.version for one in distributions(path=[str(directory)])}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def explain(tail: str) -> CoveError:
    """The error that pip's last lines tell of."""
    details = {"output": tail}
    if _DISK_FULL.search(tail):
        return error("DISK_FULL", "The disk is full: pip could not install the template's packages.", **details)
    if _UNREACHABLE.search(tail):
        return error(
            "NETWORK_ERROR", f"The package index could not be reached. pip's last lines:\n{tail}",
            remedy="Check the network and `pip config list` (index-url, proxy, cert), then build again.", **details,
        )  # fmt: skip
    return error(
        "TEMPLATE_BUILD_FAILED", f"pip could not install the template's packages. Its last lines:\n{tail}",
        remedy="Check that the index in `pip config list` offers wheels of these packages for this Python.", **details,
    )  # fmt: skip


class _PipOutput:
    """Reads pip's output line by line: keeps the last lines, and turns them into progress."""

    def __init__(self, wanted: int, landing: Path, report: StepReporter) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = b""
        self._landing = landing
        self._report = report
        # Dependencies are not known in advance; this is a guess that only shapes the bar.
        self._expected = wanted * 2
        self._collected = 0
        self._installing = 0

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LINE_LIMIT:]
        for line in lines:
            self._line(line[:_LINE_LIMIT].decode(errors="replace").rstrip())

    def tail(self) -> str:
        return "\n".join((*self._lines, self._rest.decode(errors="replace"))).strip()

    def tick(self) -> None:
        """Report installing, which pip does silently, by what has landed so far."""
        if not self._installing:
            return
        done = sum(1 for _ in self._landing.glob("*.dist-info")) if self._landing.is_dir() else 0
        self._report(f"Installing packages ({min(done, self._installing)} of {self._installing})",
                     0.6 + 0.4 * done / self._installing)  # fmt: skip

    def _line(self, line: str) -> None:
        if line:
            self._lines.append(line)
        # A wheel that lies in a directory is "processed", one from an index "collected".
        if line.startswith(("Collecting ", "Processing ")):
            self._collected += 1
            share = self._collected / (self._collected + self._expected / 2)
            self._report(f"Fetching {line.split()[1].rsplit('/', 1)[-1]}", 0.6 * share)
        elif line.startswith("Installing collected packages:"):
            self._installing = line.count(",") + 1
            self.tick()


def _follow(process: subprocess.Popen[bytes], output: _PipOutput, deadline: float) -> None:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    while time.monotonic() < deadline:
        ready, _, _ = select.select([descriptor], [], [], TICK)
        if ready:
            data = os.read(descriptor, 65536)
            if not data:
                process.wait(timeout=max(deadline - time.monotonic(), 1.0))
                return
            output.feed(data)
        output.tick()
    raise error(
        "TEMPLATE_BUILD_FAILED", f"pip did not finish in time. Its last lines:\n{output.tail()}",
        remedy="Check the network, then build again; what was fetched is in pip's cache.",
    )  # fmt: skip
