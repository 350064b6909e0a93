"""A real `cove serve` in a process of its own, on a data directory of its own. Nothing of it is left at the end."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.process_tree import end_all, processes_of

_START_SECONDS: Final = 90.0
_END_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.01
_TAIL_BYTES: Final = 2000
_READY: Final = re.compile(r"Cove serves (http://\S+?),")


class ServerFailedError(Exception):
    """The server did not start, or ended by itself."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        url: where it listens; it needs no key.
        pid: of the first process; where root starts it that supervises the server, and the host daemon is its child,
            too.
    """

    url: str
    pid: int
    data_dir: Path


def clean_environment(isolation: str = "namespace") -> dict[str, str]:
    """The environment without anything that changes what Cove does; figures are those of one driver."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVE_", "HOPX_", "PYTHON"))}
    return {**kept, "COVE_ISOLATION": isolation}


@contextlib.contextmanager
def data_directory(built: Path) -> Generator[Path]:
    """An empty data directory that borrows the templates of `built`; removed at the end.

    Its path is short: unix sockets are made in it (unix(7): 107 bytes).
    """
    path = Path(tempfile.mkdtemp(prefix="cove-", dir="/tmp"))
    links = [path / name for name in ("templates", "layers")]
    try:
        for link in links:
            link.symlink_to(built / link.name)
        yield path
    finally:
        end_all(processes_of(path))
        for link in links:
            link.unlink(missing_ok=True)
        _remove(path)


@contextlib.contextmanager
def serving(
    built: Path, *, pool_size: int, isolation: str = "namespace", variables: Mapping[str, str] | None = None
) -> Generator[Server]:
    """`cove serve --dev` on a free port, with these variables in its environment.

    Raises:
        ServerFailedError: it did not start. This and other exceptions carry the end of its log as a note.
    """
    with data_directory(built) as data_dir:
        log = data_dir / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "cove.cli.main", "serve", "--dev", "--port", "0"),
                    *("--pool-size", str(pool_size), "--data-dir", str(data_dir), "--log-format", "json"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**clean_environment(isolation), **(variables or {})},
                # Ctrl-C is for the benchmark, which then ends the server in order.
                start_new_session=True,
            )
        try:
            yield Server(url=_wait_for_address(process, log), pid=process.pid, data_dir=data_dir)
        except Exception as problem:
            problem.add_note(f"The server's log ends with:\n{_tail(log)}")
            raise
        finally:
            _end(process)


def _wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := _READY.search(log.read_text(errors="replace")):
            return found[1]
        time.sleep(_PAUSE_SECONDS)
    raise ServerFailedError("The server did not start.")


def _tail(log: Path) -> str:
    with log.open("rb") as lines:
        lines.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return lines.read().decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM first; what is left after a minute is killed with the data directory's other processes."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_SECONDS)


def _remove(path: Path) -> None:
    """Remove the tree, unless something is still mounted below it: that could be a template."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    if f" {path}/" in mounts:
        sys.stderr.write(f"{path} is left behind: something is still mounted there.\n")
        return
    shutil.rmtree(path, ignore_errors=True)
