"""A real `cove serve` in a process of its own, and what it leaves on the machine."""

import atexit
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import pytest
from tests.conftest import loop_devices_of, mounted_below
from tests.warm_processes import WarmProgram

from cove.host.cgroups import Cgroups, detect
from cove.host.templates.store import TemplateStore
from cove.models.errors import CoveError

START_SECONDS = 60.0
END_SECONDS = 40.0
SETTLE_SECONDS = 10.0
"""Warm processes that are still importing when the server ends notice it when they are done."""

TEMPLATES = ("base", "code-interpreter")
COVE = (sys.executable, "-m", "cove.cli.main")
HERE = Path.cwd()
IMPORTED = ("cove.cli.app", "cove.sdk", "cove.store.database", "cove.server.app", "cove.cli.embedded_run")

_READY = re.compile(r"Cove serves (https?://\S+?),")
_T = TypeVar("_T")


class Process(NamedTuple):
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    started: int


def until(check: Callable[[], _T], *, seconds: float, what: str) -> _T:
    """Ask again and again until `check` gives something true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return found


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without anything that would change how Cove behaves: sandboxes are those of one driver,
    whatever others this machine has. COVE_TEST_ISOLATION is for running the tests on another one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVE_", "HOPX_"))}
    isolation = os.environ.get("COVE_TEST_ISOLATION", "namespace")
    return {**kept, "PYTHONWARNINGS": "default", "COVE_ISOLATION": isolation, **more}


def run_cove(*arguments: str, stdin: bytes = b"", seconds: float = 60.0) -> subprocess.CompletedProcess[bytes]:
    """One `cove` command in a process of its own, which need not import everything first."""
    return warm_cove().run(*arguments, stdin=stdin, seconds=seconds, environment=clean_environment(), directory=HERE)


def warm_cove() -> WarmProgram:
    """One for each network namespace that tests are in: it stays where it was started. It ends with pytest."""
    return _warm_cove(Path("/proc/thread-self/ns/net").stat().st_ino)


@cache
def _warm_cove(_namespace: int) -> WarmProgram:
    warm = WarmProgram.ready("cove.cli.main:main", *IMPORTED, environment=clean_environment())
    ending = ExitStack()
    atexit.register(ending.close)
    return ending.enter_context(warm)


@contextmanager
def data_directory(built: Path) -> Generator[Path]:
    """A data directory with the built templates; at its end nothing of it may be left on the machine."""
    for name in TEMPLATES:
        try:
            TemplateStore(built, owner=None).get(name)
        except CoveError:
            pytest.skip(f"the template {name} is not built: run `make setup`")
    path = Path(tempfile.mkdtemp(prefix="cove-", dir="/tmp"))
    path.chmod(0o755)
    (built / "checkpoints").mkdir(mode=0o700, exist_ok=True)
    for name in ("templates", "layers", "checkpoints"):
        (path / name).symlink_to(built / name)
    try:
        yield path
        _expect_nothing_left(path)
    finally:
        _end_all(path)
        shutil.rmtree(path, ignore_errors=True)


class RunningServer:
    """`cove serve` on a data directory."""

    program: ClassVar[tuple[str, ...]] = COVE

    def __init__(self, data_dir: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.data_dir = data_dir
        self.process = process
        self.log = log
        self.url = ""

    @classmethod
    def start(cls, data_dir: Path, *options: str, **variables: str) -> Self:
        """Start it and wait until it says where it serves."""
        log = data_dir / f"server-{len(list(data_dir.glob('server-*.log')))}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*cls.program, "serve", "--port", "0", "--pool-size", "1", "--data-dir", str(data_dir), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=clean_environment(**variables),
                start_new_session=True,
            )
        server = cls(data_dir, process, log)
        try:
            server.url = until(server._said_url, seconds=START_SECONDS, what="the server says where it serves")
        except BaseException:
            server.kill()
            raise
        return server

    def new_key(self, name: str, *options: str) -> str:
        """A key for it."""
        return new_key(self.data_dir, name, *options)

    def _said_url(self) -> str | None:
        if self.process.poll() is not None:
            pytest.fail(f"the server ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}")
        found = _READY.search(self.log.read_text(errors="replace"))
        return found[1] if found else None

    def stop(self) -> None:
        """End it as an init system would, and wait for that."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(END_SECONDS) == 0, self.log.read_text()[-4000:]

    def kill(self) -> None:
        """End it with SIGKILL: no chance to clean up."""
        self.process.kill()
        self.process.wait(END_SECONDS)

    @property
    def pid(self) -> int:
        """Of the server. Where root starts it, `process` is its supervisor."""
        return int(json.loads((self.data_dir / "run/server/local.json").read_bytes())["pid"])

    def host_daemon(self) -> Process | None:
        """The `cove.hostd` that has this data directory now."""
        wanted = [b"-m", b"cove.hostd", b"--data-dir", str(self.data_dir).encode()]
        for process in _all_processes():
            words = _command_line(process.pid).split(b"\0")
            if words[1:5] == wanted:
                return process
        return None

    def record(self, sandbox_id: str) -> dict[str, Any] | None:
        """What the host has written down about a sandbox."""
        return _record(self.data_dir / "run" / "sandboxes" / f"{sandbox_id}.json")

    def traces(self, sandbox_id: str) -> "Traces":
        """What a running sandbox holds on the machine."""
        record = self.record(sandbox_id)
        assert record, f"the host has no record of {sandbox_id}"
        first = Process(record["pid"], record["pid_started"])
        groups = [Path(line) for line in record["driver_state"]["groups"].split("\n") if line]
        traces = Traces(
            sandbox_id,
            self.data_dir,
            frozenset({first, *_descendants({first.pid})}),
            tuple(groups),
            Path(record["socket_path"]),
        )
        assert len(traces.present()) >= 3, "a running sandbox has a process, a socket and a record at least"
        return traces


@contextmanager
def running_server(data_dir: Path, *options: str, **variables: str) -> Generator[RunningServer]:
    """A server for the block, at whose end it runs still, and ends well."""
    server = RunningServer.start(data_dir, *options, **variables)
    try:
        yield server
    finally:
        server.stop()


def new_key(data_dir: Path, name: str, *options: str) -> str:
    """What `cove keys create` prints, with or without a server."""
    made = run_cove("keys", "create", name, *options, "--quiet", "--data-dir", str(data_dir))
    assert made.returncode == 0, made.stderr.decode()
    return made.stdout.decode().strip()


class Traces(NamedTuple):
    """What a sandbox held: none of it may exist once the sandbox has ended."""

    sandbox_id: str
    data_dir: Path
    processes: frozenset[Process]
    groups: tuple[Path, ...]
    socket: Path

    def present(self) -> list[str]:
        """What of it exists now, in words."""
        record = self.data_dir / "run" / "sandboxes" / f"{self.sandbox_id}.json"
        return [
            *(f"process {process.pid}" for process in self.processes if lives(process)),
            *(f"cgroup {group}" for group in self.groups if group.exists()),
            *([f"socket {self.socket}"] if self.socket.exists() else []),
            *([f"record {record}"] if record.exists() else []),
            *(str(path) for path in (self.data_dir / "run" / "disks").glob(f"{self.sandbox_id}*")),
            *(device for device in loop_devices_of(self.data_dir) if self.sandbox_id in device),
        ]


def lives(process: Process) -> bool:
    """Whether it runs; a zombie does not."""
    fields = _stat(process.pid)
    return fields is not None and int(fields[19]) == process.started and fields[0] != b"Z"


def left_behind(data_dir: Path) -> list[str]:
    """Everything on this machine that belongs to `data_dir` while nothing should, in words."""
    prefixes = [
        hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest() + "-"
        for run in (data_dir / "run", *data_dir.glob("embedded-*"))
        for path in (run, run / "gvisor")
    ]
    run = data_dir / "run"
    # Not with glob, which fails on a directory that is removed while it looks.
    below = [Path(parent, name) for parent, folders, files in os.walk(run) for name in (*folders, *files)]
    return [
        *(f"process {process.pid}: {_command_line(process.pid)[:200]!r}" for process in _processes_of(data_dir)),
        *(f"mount {point}" for point in mounted_below(data_dir)),
        *(f"loop device {device}" for device in loop_devices_of(data_dir)),
        *(f"cgroup {prefix}{name}" for prefix in prefixes for name in Cgroups(detect(), prefix=prefix).names()),
        *(f"socket {path}" for path in below if path.suffix == ".sock"),
        *(f"record {path}" for path in below if path.parent == run / "sandboxes"),
        *(f"disk {path}" for path in below if path.parent.name == "disks" and not path.name.startswith("blank-")),
        *(f"box {path}" for path in below if path.parent == run / "gvisor" / "boxes"),
        *(f"embedded host's files {path}" for path in data_dir.glob("embedded-*")),
    ]


def _expect_nothing_left(data_dir: Path) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while remains := left_behind(data_dir):
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {remains}")
        time.sleep(0.01)


def _end_all(data_dir: Path) -> None:
    """After a test that failed: end what it started."""
    for process in _processes_of(data_dir):
        if lives(process):
            os.kill(process.pid, signal.SIGKILL)


def _processes_of(data_dir: Path) -> set[Process]:
    """Processes that name `data_dir`, those of its recorded sandboxes, and all of their children."""
    name = str(data_dir).encode()
    roots = {process for process in _all_processes() if name in _command_line(process.pid)}
    for path in (data_dir / "run" / "sandboxes").glob("*.json"):
        record = _record(path)
        if record:
            roots.add(Process(record["pid"], record["pid_started"]))
    found = {process for process in roots if process.pid != os.getpid() and lives(process)}
    return found | _descendants({process.pid for process in found})


def _descendants(pids: set[int]) -> set[Process]:
    parents = {process: int(fields[1]) for process in _all_processes() if (fields := _stat(process.pid))}
    known, found = set(pids), set[Process]()
    while fresh := {process for process, parent in parents.items() if parent in known} - found:
        found |= fresh
        known |= {process.pid for process in fresh}
    return found


def _all_processes() -> list[Process]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [Process(pid, int(fields[19])) for pid in pids if (fields := _stat(pid)) and fields[0] != b"Z"]


def _stat(pid: int) -> list[bytes] | None:
    """/proc/PID/stat from its third field on (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _record(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
