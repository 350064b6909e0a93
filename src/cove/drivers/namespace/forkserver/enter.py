"""A new process takes its place in the sandbox: root filesystem, devices, user, no privileges.

Every step runs in the new process, inside its own namespaces, before any foreign code does.
"""

import contextlib
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable
from typing import Final

from cove.drivers.namespace.forkserver.birth import Birth
from cove.drivers.namespace.forkserver.identity import cover_boot_id, write_identity
from cove.drivers.namespace.forkserver.kernel_files import mount_proc
from cove.drivers.namespace.forkserver.protocol import DEVICES, DISK, LAYERS, ROOT, USER_ID
from cove.linux import inside_root, landlock
from cove.linux.clone import CLONE_NEWCGROUP, unshare
from cove.linux.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, attach, bind, mount, pivot_root, remount
from cove.linux.network import bring_loopback_up
from cove.linux.privileges import (
    drop_bounding_set,
    drop_capabilities,
    forbid_new_privileges,
)
from cove.linux.process import set_dumpable, set_parent_death_signal
from cove.linux.seccomp import install_filter

_SHARED_MEMORY_MIB: Final = 64
_OWNED_BY_USER: Final = ("workspace", "home/user")
_OPEN_TO_ALL: Final = ("tmp", "var/tmp")
_CACHES: Final = ("usr/lib/cove/go-cache",)
"""That templates fill, and programs of the user go on filling."""


class StepFailed(Exception):
    """A step failed; nothing of the sandbox has run."""

    def __init__(self, step: str, cause: Exception) -> None:
        super().__init__(f"{step}: {cause}")
        self.step = step
        self.cause = cause


def enter_sandbox(
    birth: Birth, mounts: list[int], filter_program: bytes, keep: list[int], await_limits: Callable[[], None]
) -> None:
    """Turn this freshly forked process into the first process of its sandbox.

    Args:
        birth: what it was told.
        mounts: descriptors of the mounts that came with that.
        filter_program: the compiled seccomp filter.
        keep: descriptors that stay open, besides 0 to 2.
        await_limits: returns when this process is in its cgroups.

    Raises:
        StepFailed: naming the step.
    """
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("take on the mapped user", lambda: _become_namespace_root(birth)),
        ("mount the disk", lambda: _mount_disk(birth, mounts)),
        ("mount the layers", lambda: _mount_layers(birth, mounts)),
        ("mount the root filesystem", lambda: _mount_root(birth)),
        ("mount /proc and /dev", _mount_kernel_filesystems),
        ("make the user's directories", lambda: _make_directories(birth)),
        ("enter the root filesystem", lambda: pivot_root(ROOT)),
        ("wait for the cgroups", await_limits),
        ("create the cgroup namespace", lambda: unshare(CLONE_NEWCGROUP)),
        ("set the host name", lambda: socket.sethostname(birth.hostname)),
        ("switch on the loopback interface", bring_loopback_up),
        ("close inherited descriptors", lambda: _close_inherited(keep)),
        ("set resource limits", lambda: _limit_resources(birth)),
        ("give up privileges", lambda: _give_up_privileges(birth)),
        ("give up writing elsewhere", lambda: _restrict_changes(birth)),
        ("install the system call filter", lambda: install_filter(filter_program)),
        ("enter the workspace", lambda: _enter(birth.boot.workspace)),
    )
    for name, step in steps:
        try:
            step()
        except (OSError, ValueError, EOFError) as cause:
            raise StepFailed(name, cause) from cause


def _become_namespace_root(birth: Birth) -> None:
    if not birth.mapped:
        _map_own_user(birth)
        return
    with contextlib.suppress(PermissionError):  # an ordinary user may be forbidden to; what is kept has no id here
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _map_own_user(birth: Birth) -> None:
    """The one map that needs no privilege: this process's own user and group (user_namespaces(7))."""
    for name, content in (
        ("setgroups", "deny"),
        ("uid_map", f"{birth.user} {birth.outer_uid} 1"),
        ("gid_map", f"{birth.user} {birth.outer_gid} 1"),
    ):
        handle = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(handle, content.encode())
        finally:
            os.close(handle)


def _mount_disk(birth: Birth, mounts: list[int]) -> None:
    if not birth.has_disk:
        options = f"mode=755,size={birth.disk_mb}m,nr_inodes={max(1024, birth.disk_mb * 64)}"
        mount("tmpfs", DISK, "tmpfs", MS_NOSUID | MS_NODEV, options)
    else:
        disk = mounts.pop(0)
        attach(disk, DISK)
        os.close(disk)
    if not os.path.lexists(f"{DISK}/work"):  # a new one
        os.mkdir(f"{DISK}/upper", 0o755)
        write_identity(birth, f"{DISK}/upper")
        os.mkdir(f"{DISK}/work", 0o755)


def _mount_layers(birth: Birth, mounts: list[int]) -> None:
    if len(mounts) != (birth.layer_count if birth.has_layers else 0):
        raise ValueError("what came with the birth message is not what it says")
    for index, layer in enumerate(mounts):
        attach(layer, f"{LAYERS}/{index}")
        os.close(layer)


def _mount_root(birth: Birth) -> None:
    lower = ":".join(f"{LAYERS}/{index}" for index in range(birth.layer_count))
    options = f"lowerdir={lower},upperdir={DISK}/upper,workdir={DISK}/work,userxattr"
    mount("overlay", ROOT, "overlay", MS_NOSUID | MS_NODEV, options)


def _mount_kernel_filesystems() -> None:
    mount_proc()
    cover_boot_id()
    bind(DEVICES, f"{ROOT}/dev", recursive=True)
    remount(f"{ROOT}/dev", MS_RDONLY | MS_NOSUID | MS_NOEXEC)
    mount("devpts", f"{ROOT}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    options = f"mode=1777,size={_SHARED_MEMORY_MIB}m,nr_inodes=4096"
    mount("tmpfs", f"{ROOT}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options)


def _make_directories(birth: Birth) -> None:
    if birth.outer_uid != 0:
        _replace_foreign_directories(birth)
    for name in (*_OWNED_BY_USER, birth.boot.workspace.strip("/"), *birth.owned_directories):
        path = f"{ROOT}/{name}"
        os.makedirs(path, mode=0o755, exist_ok=True)
        if birth.mapped:
            os.chown(path, birth.user, birth.user, follow_symlinks=False)


def _replace_foreign_directories(birth: Birth) -> None:
    """In a template that another user built, overlayfs cannot copy up: its owner has no id here (EOVERFLOW)."""
    known = (0, USER_ID) if birth.mapped else (birth.user,)
    for index, name in enumerate((*_OWNED_BY_USER, *_OPEN_TO_ALL)):
        path, copy = f"{ROOT}/{name}", f"{DISK}/own-{index}"
        if os.path.isdir(path) and os.stat(path).st_uid not in known:
            shutil.copytree(path, copy, symlinks=True)
            if birth.mapped:
                _chown_tree(copy, birth.user)
            bind(copy, path)


def _chown_tree(top: str, user: int) -> None:
    for directory, names, files in os.walk(top):
        for name in (".", *names, *files):
            os.chown(f"{directory}/{name}", user, user, follow_symlinks=False)


def _enter(workspace: str) -> None:
    """The user of a sandbox that was stopped may have closed the workspace to himself."""
    try:
        os.chdir(workspace)
    except PermissionError:
        os.chdir("/")


def _close_inherited(keep: list[int]) -> None:
    """Descriptors 0 to 2 become the sandbox's own /dev/null; all others but `keep` are closed."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    start = 3
    for descriptor in sorted(keep):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _limit_resources(birth: Birth) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (birth.open_files, birth.open_files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Counted per user namespace since Linux 5.14: a second wall behind the pids cgroup, the only one without it.
    resource.setrlimit(resource.RLIMIT_NPROC, (birth.processes, birth.processes))


def _restrict_changes(birth: Birth) -> None:
    """A second wall around what the user may write, where the kernel has Landlock. For a root inside the
    wall is only around signals and abstract sockets: an installation changes files anywhere."""
    version = landlock.abi()
    if version < landlock.OLDEST_ABI:
        return
    changed = (
        *_OWNED_BY_USER,
        *_OPEN_TO_ALL,
        *_CACHES,
        "dev/shm",
        birth.boot.workspace.strip("/"),
        *birth.owned_directories,
    )
    places = {f"/{name}": landlock.CHANGE for name in changed if os.path.isdir(f"/{name}")}
    if birth.run_as_root:
        places = {"/": landlock.CHANGE}
    landlock.restrict_changes({"/proc": landlock.WRITE, "/dev": landlock.WRITE, **places}, version)


def _give_up_privileges(birth: Birth) -> None:
    os.umask(0o022)
    # Changing the user first would lose CAP_SETPCAP; dropping everything first would lose CAP_SETUID.
    kept = inside_root.NUMBERS if birth.run_as_root else frozenset[int]()
    drop_bounding_set(birth.highest_capability, keep=kept)
    if birth.mapped:
        os.setresgid(birth.user, birth.user, birth.user)
        os.setresuid(birth.user, birth.user, birth.user)
    drop_capabilities(keep=kept)
    forbid_new_privileges()
    # Same user as the code that will run here: it must not read or trace the agent.
    set_dumpable(False)
    if birth.ends_with_server:
        set_parent_death_signal(signal.SIGKILL)  # last: a change of user clears it
