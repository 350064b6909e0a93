"""Control groups, version 1, version 2 and both at once (cgroups(7)).

On a hybrid host the limits are in the version 1 hierarchies, while the empty version 2 tree freezes and kills.
Without any writable hierarchy (an ordinary user without delegation) nothing is enforced, and `enforceable` says so.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from cove.models.errors import CoveError, error
from cove.models.hosts import HostUsage
from cove.models.limits import MIB, NORMAL_CPU_SHARE, Limits

_PERIOD_US: Final = 100_000
_SHARES: Final = 1024  # what a group of version 1 has by itself; in version 2 that is 100, as in `Limits`
_REMOVE_SECONDS: Final = 2.0
_REMOVE_PAUSE: Final = 0.01
_LEAF: Final = "hostd"
_LOOKS: Final = 10


class CgroupMode(StrEnum):
    """How this host's hierarchies are laid out."""

    NONE = "none"
    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"


@dataclass(frozen=True)
class Hierarchies:
    """Where a sandbox's groups are made.

    Attributes:
        v1: controller -> directory below which groups are made.
        v2: the same for the unified hierarchy; None where it is not mounted or not writable.
        v2_controllers: those that the unified hierarchy can hand to a group below `v2`.
    """

    v1: dict[str, Path]
    v2: Path | None
    v2_controllers: frozenset[str]

    @property
    def mode(self) -> CgroupMode:
        """The layout in one word."""
        if self.v2 and self.v2_controllers:
            return CgroupMode.V2
        if self.v1:
            return CgroupMode.HYBRID if self.v2 else CgroupMode.V1
        return CgroupMode.NONE


_LIMIT_CONTROLLERS: Final = {"memory_mb": "memory", "pids": "pids", "vcpu": "cpu", "cpu_share": "cpu"}
_COUNTERS: Final = {"memory": ("memory.oom_control", "memory.events"), "pids": ("pids.events",)}


def detect(mountinfo: Path = Path("/proc/self/mountinfo"), membership: Path = Path("/proc/self/cgroup")) -> Hierarchies:
    """Find the hierarchies that this process may make groups in (proc(5): mountinfo, cgroup)."""
    own = _own_paths(membership)
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in mountinfo.read_text(encoding="utf-8").splitlines():
        fields, _, tail = line.partition(" - ")
        mount_point = Path(fields.split()[4])
        kind, _, options = tail.split(" ", 2)
        if kind == "cgroup2":
            v2 = v2 or _writable_v2(mount_point, own.get("", "/"))
        elif kind == "cgroup":
            for controller in {"memory", "pids", "cpu", "freezer"} & set(options.replace(" ", ",").split(",")):
                base = _writable(mount_point, own.get(controller, "/"))
                if base:
                    v1[controller] = base
    controllers = _available(v2) if v2 else frozenset[str]()
    return Hierarchies(v1, v2, controllers - v1.keys())


def _own_paths(membership: Path) -> dict[str, str]:
    """Controller -> this process's group; the unified hierarchy has the name ''."""
    paths: dict[str, str] = {}
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _writable(mount_point: Path, own: str) -> Path | None:
    group = mount_point / own.strip("/")
    return group / "cove" if os.access(group, os.W_OK) else None


def _writable_v2(mount_point: Path, own: str) -> Path | None:
    # Root makes its groups at the top: its own group may hold processes, and then cannot hand out controllers.
    # An earlier host daemon may have moved this process into a leaf beside its groups.
    above = own.removesuffix(f"/{_LEAF}")
    return _writable(mount_point, "/") or _writable(mount_point, above) or _writable(mount_point, own)


def _available(base: Path) -> frozenset[str]:
    try:
        return frozenset((base.parent / "cgroup.controllers").read_text(encoding="ascii").split()) & frozenset(
            _LIMIT_CONTROLLERS.values()
        )
    except OSError:
        return frozenset()


class Cgroups:
    """Makes, reads and removes the groups of sandboxes."""

    def __init__(self, hierarchies: Hierarchies, *, prefix: str = "") -> None:
        """`prefix` tells the groups of several hosts on one machine apart: each sees only its own."""
        self._hierarchies = hierarchies
        self._prefix = prefix
        self._prepared = False

    @property
    def mode(self) -> CgroupMode:
        """The layout of this host."""
        return self._hierarchies.mode

    @property
    def enforceable(self) -> frozenset[str]:
        """Names of the `Limits` fields that are enforced here by cgroups."""
        have = self._hierarchies.v1.keys() | self._hierarchies.v2_controllers
        return frozenset(limit for limit, controller in _LIMIT_CONTROLLERS.items() if controller in have)

    def create(self, name: str, limits: Limits) -> tuple[str, ...]:
        """Make the groups of one sandbox and set its limits.

        Returns:
            Their directories, to be kept in the sandbox's record.

        Raises:
            CoveError: LIMIT_NOT_ENFORCEABLE; nothing is left behind.
        """
        self._prepare()
        made: list[str] = []
        directory = self._prefix + name
        try:
            for controller, base in self._hierarchies.v1.items():
                made.append(_make(base / directory))
                _limit_v1(controller, base / directory, limits)
            if self._hierarchies.v2:
                made.append(_make(self._hierarchies.v2 / directory))
                _limit_v2(self._hierarchies.v2_controllers, self._hierarchies.v2 / directory, limits)
        except OSError as problem:
            self.remove(tuple(made))
            raise _explain(problem) from problem
        return tuple(made)

    def attach(self, groups: tuple[str, ...], pid: int) -> None:
        """Put a process into all groups; its later children are born there.

        Raises:
            CoveError: LIMIT_NOT_ENFORCEABLE.
        """
        try:
            for group in groups:
                _write(f"{group}/cgroup.procs", str(pid))
        except OSError as problem:
            raise _explain(problem) from problem

    def freeze(self, groups: tuple[str, ...], *, frozen: bool) -> None:
        """Stop or continue all processes where they are.

        Raises:
            CoveError: UNSUPPORTED when no hierarchy here can freeze.
        """
        for group in groups:
            if _write_if_there(f"{group}/cgroup.freeze", "1" if frozen else "0"):
                return
        for group in groups:
            if _write_if_there(f"{group}/freezer.state", "FROZEN" if frozen else "THAWED"):
                return
        raise error("UNSUPPORTED", "No cgroup of this sandbox can be frozen on this host.")

    def is_frozen(self, groups: tuple[str, ...]) -> bool:
        """Whether every process in these groups has really stopped: `freeze` only asks for it."""
        states = [(_keyed((group,), "frozen", "cgroup.events"), _read(f"{group}/freezer.state")) for group in groups]
        return any(frozen or state == "FROZEN\n" for frozen, state in states)

    def kill(self, groups: tuple[str, ...]) -> None:
        """End every process in these groups (SIGKILL); they may still be ending when this returns."""
        for group in groups:
            if _write_if_there(f"{group}/cgroup.kill", "1"):
                return
        for group in groups:
            for pid in (_read(f"{group}/cgroup.procs") or "").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

    @property
    def can_freeze(self) -> bool:
        """Whether pause and resume work here."""
        return self._hierarchies.v2 is not None or "freezer" in self._hierarchies.v1

    def usage(self, groups: tuple[str, ...]) -> HostUsage:
        """What the processes in these groups use now; zeros for what is not accounted here."""
        return HostUsage(
            memory_bytes=_number(groups, "memory.usage_in_bytes", "memory.current"),
            memory_peak_bytes=_number(groups, "memory.max_usage_in_bytes", "memory.peak"),
            cpu_seconds=_cpu_seconds(groups),
            pids=_number(groups, "pids.current"),
            oom_kills=_keyed(groups, "oom_kill", "memory.oom_control", "memory.events"),
        )

    @contextlib.contextmanager
    def opened_counters(self, groups: tuple[str, ...]) -> Generator[dict[str, int]]:
        """Descriptors of the files that count what the limits of `memory` and `pids` have refused, for reading; those
        that there are."""
        with contextlib.ExitStack() as opened:
            found: dict[str, int] = {}
            for name, files in _COUNTERS.items():
                descriptor = _opened(groups, files)
                if descriptor is not None:
                    opened.callback(os.close, descriptor)
                    found[name] = descriptor
            yield found

    def remove(self, groups: tuple[str, ...]) -> None:
        """Remove groups whose processes have ended; waits, bounded, until the kernel lets go of the last one."""
        deadline = time.monotonic() + _REMOVE_SECONDS
        for group in groups:
            while not _removed(group) and time.monotonic() < deadline:
                time.sleep(_REMOVE_PAUSE)

    def names(self) -> set[str]:
        """Names of all groups of ours that exist."""
        found = {path.name for base in self._bases() if base.is_dir() for path in base.iterdir() if path.is_dir()}
        return {name.removeprefix(self._prefix) for name in found if name.startswith(self._prefix)}

    def groups_of(self, name: str) -> tuple[str, ...]:
        """The directories that `create` would make for `name`."""
        return tuple(str(base / (self._prefix + name)) for base in self._bases())

    def _bases(self) -> list[Path]:
        return [*self._hierarchies.v1.values(), *([self._hierarchies.v2] if self._hierarchies.v2 else [])]

    def _prepare(self) -> None:
        if self._prepared:
            return
        for base in self._hierarchies.v1.values():
            base.mkdir(exist_ok=True)
        if self._hierarchies.v2:
            _hand_out(self._hierarchies.v2, self._hierarchies.v2_controllers)
        self._prepared = True


def prime_attach() -> None:
    """Make the kernel's next moves of processes between cgroups immediate.

    The first move after a while waits for an RCU grace period (measured: 6 ms idle, then 0.03 ms each while moves
    follow each other). A move of this process to where it is already starts that wait early, so that it passes
    while the sandbox is being forked. Call it in a thread.
    """
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, tail = line.partition(" - ")
        if tail.startswith("cgroup "):
            own = _own_paths(Path("/proc/self/cgroup"))
            controller = next((name for name in tail.split()[-1].split(",") if name in own), None)
            if controller:
                with contextlib.suppress(OSError):
                    _write(f"{fields.split()[4]}{own[controller].rstrip('/')}/cgroup.procs", "0")
                return


def _hand_out(base: Path, controllers: frozenset[str]) -> None:
    """Let groups below `base` have `controllers` (cgroups(7): no internal processes but in the root)."""
    base.mkdir(exist_ok=True)
    wanted = " ".join(f"+{controller}" for controller in sorted(controllers))
    if not wanted:
        return
    try:
        _write(f"{base.parent}/cgroup.subtree_control", wanted)
    except OSError as problem:
        if problem.errno != errno.EBUSY:
            raise _explain(problem) from problem
        try:
            move_into_leaf(base.parent)
            _write(f"{base.parent}/cgroup.subtree_control", wanted)
        except OSError as still:
            raise _explain(still) from still
    _write(f"{base}/cgroup.subtree_control", wanted)


def move_into_leaf(group: Path) -> None:
    """Empty a group of version 2 that was delegated to this user, into a group below it: the server, this process and
    whatever else was started with them. Who forks meanwhile leaves a child behind, so it is looked at again.

    Raises:
        OSError: a process is somebody else's.
    """
    leaf = group / _LEAF
    leaf.mkdir(exist_ok=True)
    for _ in range(_LOOKS):
        pids = (_read(f"{group}/cgroup.procs") or "").split()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                _write(f"{leaf}/cgroup.procs", pid)


def _make(group: Path) -> str:
    group.mkdir()
    return str(group)


def _limit_v1(controller: str, group: Path, limits: Limits) -> None:
    if controller == "memory":
        memory = str(limits.memory_mb * MIB)
        _write(f"{group}/memory.limit_in_bytes", memory)
        # Memory and swap together: as much as memory alone, so no swap. Absent without swap accounting.
        _write_if_there(f"{group}/memory.memsw.limit_in_bytes", memory)
        _write_if_there(f"{group}/memory.swappiness", "0")
    elif controller == "pids":
        _write(f"{group}/pids.max", str(limits.pids))
    elif controller == "cpu":
        _write(f"{group}/cpu.cfs_period_us", str(_PERIOD_US))
        _write(f"{group}/cpu.cfs_quota_us", str(limits.vcpu * _PERIOD_US))
        if limits.cpu_share != NORMAL_CPU_SHARE:
            _write(f"{group}/cpu.shares", str(max(2, limits.cpu_share * _SHARES // NORMAL_CPU_SHARE)))


def _limit_v2(controllers: frozenset[str], group: Path, limits: Limits) -> None:
    if "memory" in controllers:
        _write(f"{group}/memory.max", str(limits.memory_mb * MIB))
        _write_if_there(f"{group}/memory.swap.max", "0")
    if "pids" in controllers:
        _write(f"{group}/pids.max", str(limits.pids))
    if "cpu" in controllers:
        _write(f"{group}/cpu.max", f"{limits.vcpu * _PERIOD_US} {_PERIOD_US}")
        if limits.cpu_share != NORMAL_CPU_SHARE:
            _write(f"{group}/cpu.weight", str(limits.cpu_share))


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _write_if_there(path: str, text: str) -> bool:
    try:
        _write(path, text)
    except FileNotFoundError:
        return False
    return True


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return None


def _number(groups: tuple[str, ...], *files: str) -> int:
    for group in groups:
        for file in files:
            text = _read(f"{group}/{file}")
            if text is not None:
                return int(text)
    return 0


def _keyed(groups: tuple[str, ...], key: str, *files: str) -> int:
    for group in groups:
        for file in files:
            for line in (_read(f"{group}/{file}") or "").splitlines():
                name, _, value = line.partition(" ")
                if name == key:
                    return int(value)
    return 0


def _opened(groups: tuple[str, ...], files: tuple[str, ...]) -> int | None:
    for group in groups:
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                return os.open(f"{group}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    return None


def _cpu_seconds(groups: tuple[str, ...]) -> float:
    microseconds = _keyed(groups, "usage_usec", "cpu.stat")
    return microseconds / 1e6 if microseconds else _number(groups, "cpuacct.usage") / 1e9


def _removed(group: str) -> bool:
    try:
        os.rmdir(group)  # noqa: PTH106 (a path from a record)
    except FileNotFoundError:
        return True
    except OSError as problem:
        if problem.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def _explain(problem: OSError) -> CoveError:
    return error(
        "LIMIT_NOT_ENFORCEABLE",
        f"A control group cannot be set up: {problem}.",
        remedy="`cove doctor` shows which controllers this machine has.",
        path=str(problem.filename or ""),
    )
