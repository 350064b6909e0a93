"""Set the stage for a fork server, then become it (a program of its own: `python -m ...launcher`).

The privileged part of starting a template's warm process, small on purpose. As root:
new mount, pid, network, ipc and uts namespaces; a root file system of the template's read-only layers; devices;
then the fork server is started as an unprivileged user without capabilities. As an ordinary user the same happens
inside a user namespace that maps just that user.

Three processes: this one ends at once; its child is the first process of the pid namespace, which only waits, so
that sandboxes outlive the fork server; its child becomes the fork server.
"""

import errno
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Self

from cove.drivers.namespace.forkserver import protocol
from cove.host.identities import TEMPLATE_OWNER
from cove.host.subordinate_ids import TOOLS
from cove.linux.clone import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, unshare
from cove.linux.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, bind, make_private, mount, pivot_root
from cove.linux.privileges import (
    drop_bounding_set,
    drop_capabilities,
    forbid_new_privileges,
    keep_over_exec,
    last_capability,
)

_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

USE_SUBORDINATE_IDS = "use the subordinate ids"
"""The step that may be left out: sandboxes work without."""

_HOME = "/home/user"
_MAP_SECONDS = 10
_MAPPING = frozenset({6, 7})
"""CAP_SETGID and CAP_SETUID, in the user namespace that the launcher has made: with them the fork server of an ordinary
user writes the maps of sandboxes. No sandbox has them there."""


@dataclass(frozen=True)
class Launch:
    """What the driver asks for, as the program's one argument (JSON).

    Attributes:
        channel: inherited descriptor that the fork server will speak on.
        mount_point: an empty directory to build the root filesystem on.
        layers: template layers of the sandboxes, topmost first.
        foreign: how many of these, from the top, hold what a user's build made: they are not in the fork server's own
            root, since nothing of a user's may run outside of a sandbox.
        python: interpreter, as a path inside the template; empty: this very process becomes the fork server of the
            boot probe.
        environment: of the fork server; sandboxes get theirs from the same template.
        modules: to import before the first fork.
        user: unprivileged user id to run as; None when this process is an ordinary user already.
        maps: then: arguments for newuidmap(1) and newgidmap(1); empty: the user namespace holds just that user.
    """

    channel: int
    mount_point: str
    layers: tuple[str, ...]
    foreign: int
    python: str
    environment: dict[str, str]
    modules: tuple[str, ...]
    user: int | None
    maps: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> str:
        """As the argument of the program."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The reverse of `to_json`."""
        fields = json.loads(text)
        fields |= {name: tuple(fields[name]) for name in ("layers", "modules")}
        fields["maps"] = tuple(tuple(one) for one in fields["maps"])
        return cls(**fields)


def main() -> None:
    """Entry point."""
    launch = Launch.from_json(sys.argv[1])
    channel = socket.socket(fileno=launch.channel)
    step = USE_SUBORDINATE_IDS if launch.maps else "make namespaces"
    try:
        _isolate(launch)
        step = "prepare the template's root filesystem"
        _build_root(launch)
    except (OSError, subprocess.SubprocessError) as problem:
        protocol.send(channel, protocol.failure(step, problem))
        os._exit(1)
    if os.fork():
        os._exit(0)
    _be_first_process(launch, channel)


def _isolate(launch: Launch) -> None:
    namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    if launch.user is not None:
        unshare(namespaces)
    elif launch.maps:
        _unshare_mapped(namespaces | CLONE_NEWUSER, launch.maps)
    else:
        uid, gid = os.getuid(), os.getgid()
        unshare(namespaces | CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    make_private()


def _unshare_mapped(namespaces: int, maps: tuple[tuple[str, ...], ...]) -> None:
    """A child stays outside and calls newuidmap(1) and newgidmap(1), which have the privilege to write the maps."""
    target = str(os.getpid())
    reader, writer = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(writer)
        if os.read(reader, 1) != b"!":
            os._exit(1)
        for tool, arguments in zip(TOOLS, maps, strict=True):
            _exit_unless_done([tool, target, *arguments])
        os._exit(0)
    os.close(reader)
    try:
        unshare(namespaces)
        os.write(writer, b"!")
    finally:
        os.close(writer)
        _, status = os.waitpid(helper, 0)
    if status != 0:
        raise OSError(errno.EPERM, "newuidmap or newgidmap failed; the log of the warm process has what they said")


def _exit_unless_done(command: list[str]) -> None:
    try:
        subprocess.run(command, timeout=_MAP_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as problem:
        print(problem, file=sys.stderr, flush=True)  # noqa: T201
        os._exit(1)


def _build_root(launch: Launch) -> None:
    root = launch.mount_point
    first, *rest = own = launch.layers[launch.foreign :]
    for layer in launch.layers:
        os.stat(layer)  # names the one that is missing, which mount(2) does not
    if rest:
        mount("overlay", root, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, f"lowerdir={':'.join(own)}")
    else:
        bind(first, root, MS_RDONLY | MS_NOSUID | MS_NODEV)
    stage = root + protocol.STAGE
    mount("tmpfs", stage, "tmpfs", MS_NOSUID, "mode=755,size=32m")
    for path in (protocol.LAYERS, protocol.DISK, protocol.ROOT, protocol.DEVICES, protocol.EMPTY):
        os.mkdir(root + path, 0o755)
    bind(root + protocol.EMPTY, root + protocol.EMPTY, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for index, layer in enumerate(launch.layers):
        target = f"{root}{protocol.LAYERS}/{index}"
        os.mkdir(target, 0o755)
        bind(layer, target, MS_RDONLY | MS_NOSUID | MS_NODEV)
    _make_devices(root + protocol.DEVICES, privileged=launch.user is not None)
    bind(root + protocol.DEVICES, root + "/dev", recursive=True)
    mount("tmpfs", root + "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=16m")
    _make_home(root, launch.user)


def _make_home(root: str, user: int | None) -> None:
    """A writable copy of the template's home: libraries look at import whether their caches can be written, and
    remember the answer."""
    home, copy = root + _HOME, root + protocol.STAGE + "/home"
    if not os.path.isdir(home):
        return
    shutil.copytree(home, copy, symlinks=True)
    if user is not None:
        for directory, names, files in os.walk(copy):
            for name in (".", *names, *files):
                os.chown(f"{directory}/{name}", user, user, follow_symlinks=False)
    bind(copy, home)


def _make_devices(directory: str, *, privileged: bool) -> None:
    """Ordinary users may not make device nodes: they get the host's, bound one by one."""
    owner = f",uid={TEMPLATE_OWNER},gid={TEMPLATE_OWNER}" if privileged else ""
    mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NOEXEC, f"mode=755,size=64k{owner}")
    for name, (major, minor) in _DEVICES.items():
        path = f"{directory}/{name}"
        if privileged:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
            os.chmod(path, 0o666)  # noqa: S103 (what these devices are for; mknod heeds the umask)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
            bind(f"/dev/{name}", path)
    for name, target in _LINKS.items():
        os.symlink(target, f"{directory}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{directory}/{name}", 0o755)


def _be_first_process(launch: Launch, channel: socket.socket) -> None:
    """In the new pid namespace: finish the root, start the fork server, then reap until nothing is left."""
    be_probe = None if launch.python else _load_probe()
    try:
        highest = last_capability()
        mount("proc", launch.mount_point + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        pivot_root(launch.mount_point)
        _drop_to_user(launch, highest)
    except OSError as problem:
        protocol.send(channel, protocol.failure("enter the template's root filesystem", problem))
        os._exit(1)
    if os.fork() == 0:
        if be_probe:
            be_probe(channel)
            os._exit(0)
        _exec_fork_server(launch, channel)
    channel.close()
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.closerange(0, 1024)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            os._exit(0)


def _load_probe() -> Callable[[socket.socket], None]:
    """The boot probe's fork server, loaded while this program's own files can be seen."""
    from cove.drivers.namespace.forkserver.serve import serve
    from cove.drivers.namespace.probe import report_self

    return lambda channel: serve(channel, report_self, [])


def _drop_to_user(launch: Launch, highest: int) -> None:
    user = launch.user
    if user is None and launch.maps:
        drop_bounding_set(highest, keep=_MAPPING)
        keep_over_exec(_MAPPING)
    elif user is not None:
        drop_bounding_set(highest)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        drop_capabilities()
    forbid_new_privileges()


def _exec_fork_server(launch: Launch, channel: socket.socket) -> None:
    descriptor = channel.detach()
    os.set_inheritable(descriptor, True)
    os.setsid()
    module = "cove.drivers.namespace.forkserver"
    command = [launch.python, "-m", module, str(descriptor), *launch.modules]
    try:
        os.execve(launch.python, command, launch.environment)  # noqa: S606 (no shell is wanted)
    except OSError as problem:
        protocol.send(socket.socket(fileno=descriptor), protocol.failure(f"start {launch.python}", problem))
        os._exit(1)


def _write(path: str, text: str) -> None:
    with open(path, "wb") as file:
        file.write(text.encode())


if __name__ == "__main__":
    main()
