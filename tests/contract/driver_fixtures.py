"""Drivers under test: how to open one, what it runs, and what it leaves on the machine."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from tests.conftest import loop_devices_of, mounted_below

from cove.drivers.base import RuntimeDriver
from cove.drivers.fake import FakeDriver
from cove.drivers.gvisor.driver import GvisorDriver
from cove.drivers.gvisor.runsc import find_runsc
from cove.drivers.namespace.driver import NamespaceDriver
from cove.host.cgroups import Cgroups, detect
from cove.host.disks import LoopDisks
from cove.host.identities import TEMPLATE_OWNER, host_id
from cove.host.templates.store import TemplateStore
from cove.linux.clone import is_alive, start_time_of
from cove.models.errors import CoveError
from cove.models.hosts import SandboxRecord, SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.limits import Limits
from cove.models.templates import TemplateManifest

SMALL = Limits(vcpu=1, memory_mb=256, disk_mb=64, pids=128, open_files=1024)


class Process(NamedTuple):
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return is_alive(self.pid, self.started)


class Subject(ABC):
    """One kind of driver on a directory of its own.

    Attributes:
        name: for test ids.
        template: what its sandboxes run.
        directory: where it keeps all its files.
        runs_programs: whether there is a real agent inside; otherwise just something that answers `GET /health`.
        has_processes: whether a sandbox is made of processes of its own.
        can_outlive: whether sandboxes go on without the driver that made them.
        has_fork_server: whether one process is kept for all sandboxes of a template.
        survives_oom: whether a sandbox goes on when the host has ended a program of it that took too much memory.
        burst: how many sandboxes at once are many.
        moments: milliseconds after which a start is given up, to hit all of its steps.
        keeps_ready: the driver makes sandboxes ahead; off for tests that would only wait for their end.
    """

    name: str
    template: TemplateManifest
    directory: Path
    runs_programs = True
    has_processes = True
    can_outlive = True
    has_fork_server = False
    survives_oom = True
    burst = 20
    moments: Sequence[int] = range(0, 60, 3)
    keeps_ready = True

    @abstractmethod
    def open(self, directory: Path | None = None, *, outlive_host: bool = True) -> RuntimeDriver:
        """A new driver on the same directory, as a restarted daemon has."""

    @abstractmethod
    def remains(self) -> list[str]:
        """What is there of sandboxes and of what is kept ready for them, in words; empty when nothing is."""

    def remains_of(self, record: SandboxRecord) -> list[str]:
        """The same, of one sandbox."""
        return [record.socket_path] if Path(record.socket_path).exists() else []

    @abstractmethod
    def launchers(self) -> list[str]:
        """Processes that the driver itself keeps, in words."""

    def kept(self, records: list[SandboxRecord]) -> list[Process]:
        """Those of them that end with the driver, while `records` are all of its sandboxes."""
        return []

    def user_of(self, record: SandboxRecord) -> int:
        """The user on the host that a sandbox's programs are."""
        return host_user(record)


class NamespaceSubject(Subject):
    """The namespace driver with all limits, as root."""

    name = "namespace"
    has_fork_server = True

    def __init__(self, directory: Path, template: TemplateManifest, *, mark: str = "test") -> None:
        """`mark` starts the names of its cgroups; with an empty one they are those of a daemon on `directory`."""
        self.directory = directory
        self.template = template
        digest = hashlib.blake2b(str(directory).encode(), digest_size=4).hexdigest()
        self.prefix = f"{mark}{digest}-"
        self.cgroups = Cgroups(detect(), prefix=self.prefix)
        self.disks = LoopDisks(directory / "disks", owner=TEMPLATE_OWNER)

    def open(self, directory: Path | None = None, *, outlive_host: bool = True) -> NamespaceDriver:
        run_dir = directory or self.directory
        return NamespaceDriver(run_dir, cgroups=self.cgroups, disks=self.disks, outlive_host=outlive_host)

    def remains(self) -> list[str]:
        return [
            *(f"cgroup {name}" for name in sorted(self.cgroups.names())),
            *(f"disk {name}" for name in sorted(self.disks.names())),
            *(f"socket {path.name}" for path in sorted((self.directory / "sockets").glob("*"))),
            *(f"mount {path}" for path in mounted_below(self.directory)),
            *(f"loop device {line}" for line in loop_devices_of(self.directory)),
        ]

    def remains_of(self, record: SandboxRecord) -> list[str]:
        groups = record.driver_state["groups"].splitlines()
        names = {record.sandbox_id, *(Path(group).name.removeprefix(self.prefix) for group in groups)}
        return [line for line in self.remains() if any(name in line for name in names)]

    def launchers(self) -> list[str]:
        mark = json.dumps(str(self.directory))[:-1].encode()
        return [f"process {pid}: {line!r}" for pid, line in _command_lines() if mark in line]

    def kept(self, records: list[SandboxRecord]) -> list[Process]:
        return fork_servers(self)


class GvisorSubject(Subject):
    """The gVisor driver, as root. Memory images of templates are shared with whoever else runs Cove here."""

    name = "gvisor"
    survives_oom = False  # what the host sees, and ends, is the sandbox's kernel
    burst = 5
    moments = range(0, 400, 45)

    def __init__(self, directory: Path, template: TemplateManifest, *, checkpoints: Path, mark: str = "test") -> None:
        """`mark`: see `NamespaceSubject`."""
        self.directory = directory
        self.template = template
        self.checkpoints = checkpoints
        digest = hashlib.blake2b(str(directory).encode(), digest_size=4).hexdigest()
        self.prefix = f"{mark}{digest}-"
        self.cgroups = Cgroups(detect(), prefix=self.prefix)
        self.disks = LoopDisks(directory / "disks", owner=TEMPLATE_OWNER)

    def open(self, directory: Path | None = None, *, outlive_host: bool = True) -> GvisorDriver:
        return GvisorDriver(
            directory or self.directory,
            checkpoints=self.checkpoints,
            cgroups=self.cgroups,
            disks=self.disks,
            outlive_host=outlive_host,
            ready_members=2 if self.keeps_ready else 0,
        )

    def remains(self) -> list[str]:
        return [
            *(f"cgroup {name}" for name in sorted(self.cgroups.names())),
            *(f"disk {name}" for name in sorted(self.disks.names())),
            *(f"socket {path.name}" for path in sorted((self.directory / "sockets").glob("*"))),
            *(f"box {path.name}" for path in sorted((self.directory / "boxes").glob("*"))),
            *(f"mount {path}" for path in mounted_below(self.directory)),
            *(f"loop device {line}" for line in loop_devices_of(self.directory)),
        ]

    def remains_of(self, record: SandboxRecord) -> list[str]:
        names = {record.sandbox_id, record.driver_state["kit"]}
        return [line for line in self.remains() if any(name in line for name in names)]

    def launchers(self) -> list[str]:
        mark = str(self.directory).encode()
        return [f"process {pid}: {line!r}" for pid, line in _command_lines() if mark in line]

    def kept(self, records: list[SandboxRecord]) -> list[Process]:
        used = {record.driver_state["kit"] for record in records}
        lines = (line for line in self.launchers() if not any(kit in line for kit in used))
        found: list[Process] = []
        for pid in (int(line.split()[1].rstrip(":")) for line in lines):
            with contextlib.suppress(OSError):  # it has ended
                found.append(Process(pid, start_time_of(pid)))
        return found

    def user_of(self, record: SandboxRecord) -> int:
        return host_id(int(record.driver_state["slot"]), 1000)


class FakeSubject(Subject):
    """The driver that isolates nothing keeps the promises too that need no isolation."""

    name = "fake"
    runs_programs = has_processes = can_outlive = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.template = TemplateManifest(
            name="base",
            display_name="",
            description="",
            digest="fake",
            layers=(),
            python="",
            built_at=datetime.now(UTC),
        )

    def open(self, directory: Path | None = None, *, outlive_host: bool = True) -> FakeDriver:
        return FakeDriver(directory or self.directory)

    def remains(self) -> list[str]:
        return [f"socket {path.name}" for path in self.directory.glob("*.sock")]

    def launchers(self) -> list[str]:
        return []


def built_template(data_dir: Path, name: str) -> TemplateManifest:
    """A template of this machine; skips the test where there is none."""
    try:
        return TemplateStore(data_dir, owner=None).get(name)
    except CoveError:
        pytest.skip(f"the template {name} is not built: run `make setup`")


def need_runsc() -> None:
    """Skips the test where gVisor is not installed, or this is not root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    try:
        find_runsc()
    except CoveError as problem:
        pytest.skip(f"{problem.message} {problem.remedy}")


@contextmanager
def short_directory() -> Generator[Path]:
    """Readable by the fork server's user, with a path short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="cove-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def spec_of(subject: Subject, limits: Limits = SMALL, **fields: Any) -> SandboxSpec:
    """A new sandbox to ask for."""
    return SandboxSpec(sandbox_id=new_sandbox_id(), template=subject.template.name, limits=limits, **fields)


class Inside:
    """The agent of one sandbox."""

    def __init__(self, record: SandboxRecord) -> None:
        self.record = record

    def _client(self, seconds: float) -> httpx2.AsyncClient:
        transport = httpx2.AsyncHTTPTransport(uds=self.record.socket_path, verify=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://agent", timeout=seconds)

    async def health(self, seconds: float = 20.0) -> int:
        """Status of `GET /health`."""
        async with self._client(seconds) as client:
            return (await client.get("/health")).status_code

    async def run(self, code: str, language: str = "bash", **fields: Any) -> dict[str, Any]:
        """The result of a program."""
        async with self._client(40.0) as client:
            answer = await client.post("/execute", json={"code": code, "language": language, "timeout": 30, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def output(self, code: str, language: str = "bash", **fields: Any) -> str:
        """What a program printed that ended well."""
        result = await self.run(code, language, **fields)
        assert result["exit_code"] == 0, result
        return result["stdout"].strip()

    def processes(self) -> list[Process]:
        """All processes of this sandbox, as the host sees them."""
        found: set[Process] = set()
        for group in self.record.driver_state.get("groups", "").splitlines():
            for pid in Path(group, "cgroup.procs").read_text().split():
                found.add(Process(int(pid), start_time_of(int(pid))))
        return sorted(found)


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait for a condition, bounded."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def clean_up(subject: Subject) -> None:
    """Assert that nothing is left; remove what is, so that a failed test harms no other."""
    try:
        await nothing_remains(subject)
    except AssertionError:
        for line in subject.launchers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[1].rstrip(":")), signal.SIGKILL)
        driver = subject.open()
        await driver.sweep(frozenset())
        await driver.close()
        raise


async def nothing_remains(subject: Subject, record: SandboxRecord | None = None) -> None:
    """The kernel frees loop devices with the last user, a moment after the last process has gone."""

    def left() -> list[str]:
        return subject.remains_of(record) if record else [*subject.remains(), *subject.launchers()]

    try:
        await until(lambda: not left(), seconds=5)
    except TimeoutError:
        raise AssertionError(left()) from None


def host_user(record: SandboxRecord) -> int:
    """The user on the host as which its first process runs."""
    return os.stat(f"/proc/{record.pid}").st_uid


def fork_servers(subject: Subject) -> list[Process]:
    """The children of the driver's first processes: fork servers, each with its sandboxes."""
    found: list[Process] = []
    for line in subject.launchers():
        first = line.split()[1].rstrip(":")
        for pid in Path(f"/proc/{first}/task/{first}/children").read_text().split():
            if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(Process(int(pid), start_time_of(int(pid))))
    return found


def accepts(path: str) -> bool:
    """Whether something accepts connections on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(path)
        except OSError:
            return False
    return True


def _command_lines() -> Iterator[tuple[int, bytes]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                yield int(entry), Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
