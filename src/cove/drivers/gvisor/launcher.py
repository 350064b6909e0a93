"""Set the stage for `runsc`, then become it (a program of its own: `python -m ...launcher`).

Enters the sandbox's cgroups, then a network namespace and a mount namespace that nobody else has: in the latter the
sandbox's disk and its root filesystem are mounted, so that both go with the last process of the sandbox, however it
ends.
"""

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Self

from cove.drivers.gvisor.wire import connect
from cove.linux.clone import CLONE_NEWNS, unshare
from cove.linux.mounts import MS_NODEV, MS_NOSUID, attach, make_private, mount

FAILED = 120
"""Exit status: the line on standard error is ours."""

_NETWORK_SETTINGS = "/proc/sys/net/core"
"""Hidden: by what is there `runsc` tells the host's own network namespace, which it takes no interface of, and newer
kernels have it in all of them."""
_OWNED_BY_USER = ("workspace", "home/user")


@dataclass(frozen=True)
class Launch:
    """What the driver asks for, as the program's one argument (JSON).

    Attributes:
        groups: directories of the sandbox's cgroups.
        stage: an empty directory on which the disk is mounted.
        root: an empty directory on which the root filesystem is mounted.
        layers: of the template, topmost first.
        disk: inherited descriptor of the mounted disk; -1: a tmpfs of `disk_mb` MiB.
        user: host user and group id of the sandbox's user.
        owned: directories of the user in the root filesystem, beside the usual ones.
        placeholder: path in the root filesystem of the file that keeps `runsc` from mounting memory over /tmp; empty:
            none is made.
        lifeline: inherited descriptor of the read end of a pipe: at its end, when the host has gone, all processes of
            the sandbox are killed. -1: the sandbox outlives the host.
        command: `runsc` and its arguments.
    """

    groups: tuple[str, ...]
    stage: str
    root: str
    layers: tuple[str, ...]
    disk: int
    disk_mb: int
    user: int
    owned: tuple[str, ...]
    placeholder: str
    lifeline: int
    command: tuple[str, ...]

    def to_json(self) -> str:
        """As the argument of the program."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The reverse of `to_json`."""
        fields = json.loads(text)
        for name in ("groups", "layers", "owned", "command"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def main() -> None:
    """Entry point."""
    launch = Launch.from_json(sys.argv[1])
    if launch.lifeline >= 0:
        _watch_lifeline(launch)
    try:
        _enter_cgroups(launch.groups)
        connect()
        unshare(CLONE_NEWNS)
        make_private()
        _mount_root(launch)
        _make_directories(launch)
        mount("tmpfs", _NETWORK_SETTINGS, "tmpfs", MS_NOSUID | MS_NODEV, "mode=555,size=4k")
        os.execve(launch.command[0], launch.command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})  # noqa: S606
    except OSError as problem:
        print(problem, file=sys.stderr, flush=True)  # noqa: T201
        os._exit(FAILED)


def _watch_lifeline(launch: Launch) -> None:
    """A process beside the sandbox that ends it when the host has gone, however that went."""
    if os.fork():
        os.close(launch.lifeline)
        return
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    if launch.disk >= 0:
        os.close(launch.disk)
    while os.read(launch.lifeline, 1):
        continue
    for group in launch.groups:
        _kill(group)
    os._exit(0)


def _kill(group: str) -> None:
    """Version 2 ends all of a group at once; in version 1 those that are there now, of which one is the kernel."""
    with contextlib.suppress(OSError):
        handle = os.open(f"{group}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        os.write(handle, b"1")
        os.close(handle)
        return
    with contextlib.suppress(OSError), open(f"{group}/cgroup.procs", "rb") as file:
        for pid in file.read().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _enter_cgroups(groups: tuple[str, ...]) -> None:
    for group in groups:
        handle = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, b"0")
        finally:
            os.close(handle)


def _mount_root(launch: Launch) -> None:
    for layer in launch.layers:
        os.stat(layer)  # names the one that is missing, which mount(2) does not
    if launch.disk < 0:
        options = f"mode=755,size={launch.disk_mb}m,nr_inodes={max(1024, launch.disk_mb * 64)}"
        mount("tmpfs", launch.stage, "tmpfs", MS_NOSUID | MS_NODEV, options)
    else:
        attach(launch.disk, launch.stage)
        os.close(launch.disk)
    upper, work = f"{launch.stage}/upper", f"{launch.stage}/work"
    owner = os.stat(launch.stage)
    for path in (upper, work):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
            os.chown(path, owner.st_uid, owner.st_gid)
    options = f"lowerdir={':'.join(launch.layers)},upperdir={upper},workdir={work},userxattr"
    mount("overlay", launch.root, "overlay", MS_NOSUID | MS_NODEV, options)


def _make_directories(launch: Launch) -> None:
    for name in (*_OWNED_BY_USER, *launch.owned):
        path = f"{launch.root}/{name}"
        os.makedirs(path, mode=0o755, exist_ok=True)
        os.chown(path, launch.user, launch.user, follow_symlinks=False)
    if launch.placeholder:
        flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_EXCL | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):
            handle = os.open(launch.root + launch.placeholder, flags, 0o600)
            os.fchown(handle, launch.user, launch.user)
            os.close(handle)


if __name__ == "__main__":
    main()
