"""mount(2) and its younger relatives."""

import os
import struct
from typing import Final

from cove.linux.calls import libc_call, syscall

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_NOATIME: Final = 1024
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_RELATIME: Final = 1 << 21

_MNT_DETACH: Final = 2
_AT_FDCWD: Final = -100
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_OPEN_TREE_CLONE: Final = 1
_AT_EMPTY_PATH: Final = 0x1000
_MOUNT_ATTR_IDMAP: Final = 0x00100000
_MOUNT_ATTRIBUTES: Final = struct.Struct("=4Q")
"""struct mount_attr: attr_set, attr_clr, propagation, userns_fd (mount_setattr(2))."""

MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NOSUID: Final = 2
MOUNT_ATTR_NODEV: Final = 4
MOUNT_ATTR_NOATIME: Final = 0x10


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    libc_call("mount", source.encode(), target.encode(), kind.encode(), flags, options.encode())


def bind(source: str, target: str, flags: int = 0, *, recursive: bool = False) -> None:
    """Bind-mount; `flags` other than 0 are put in force by the second call that the kernel wants."""
    depth = MS_REC if recursive else 0
    libc_call("mount", source.encode(), target.encode(), b"", MS_BIND | depth, None)
    if flags:
        remount(target, flags)


def remount(target: str, flags: int) -> None:
    """Change the flags of the one mount at `target`; what is mounted below it stays as it is."""
    libc_call("mount", b"none", target.encode(), b"", MS_BIND | MS_REMOUNT | flags, None)


def make_private(target: str = "/") -> None:
    """Cut propagation between `target` (and below) and the mount namespace that it was copied from."""
    libc_call("mount", b"none", target.encode(), b"", MS_REC | MS_PRIVATE, None)


def detach(target: str) -> None:
    """Lazy unmount: gone from the tree at once, freed with its last user."""
    libc_call("umount2", target.encode(), _MNT_DETACH)


def pivot_root(new_root: str) -> None:
    """Make `new_root` (a mount point) the root and drop the old one (pivot_root(2), `pivot_root(".", ".")`)."""
    os.chdir(new_root)
    syscall("pivot_root", b".", b".")
    detach(".")
    os.chdir("/")


def new_filesystem(kind: str, options: dict[str, str | None], attributes: int) -> int:
    """A mounted filesystem that is attached nowhere yet (fsopen, fsconfig, fsmount).

    It lives as long as the returned descriptor, or as long as some mount namespace holds it.

    Raises:
        OSError: with what the kernel logged into the context, where it did.
    """
    context = syscall("fsopen", kind.encode(), _FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            if value is None:
                syscall("fsconfig", context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)
            else:
                syscall("fsconfig", context, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
        syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall("fsmount", context, _FSMOUNT_CLOEXEC, attributes)
    except OSError as failure:
        raise OSError(failure.errno, f"{failure.strerror} {_log_of(context)}".strip(), kind) from failure
    finally:
        os.close(context)


def attach(mount_fd: int, target: str) -> None:
    """Attach a mount from `new_filesystem` at `target` in this mount namespace (move_mount)."""
    syscall("move_mount", mount_fd, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)


def id_mapped_copy(path: str, user_namespace: int, attributes: int) -> int:
    """A second mount of the directory `path`, attached nowhere yet, in which the owners of files are what a user
    namespace's maps make of them (mount_setattr(2), MOUNT_ATTR_IDMAP; Linux 5.12).

    Args:
        user_namespace: descriptor of the namespace; its maps lead from the ids on the disk to those of the host.
        attributes: MOUNT_ATTR_*.

    Raises:
        OSError: EINVAL for a filesystem that cannot do this, EPERM without CAP_SYS_ADMIN.
    """
    tree = syscall("open_tree", _AT_FDCWD, path.encode(), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    try:
        wanted = _MOUNT_ATTRIBUTES.pack(_MOUNT_ATTR_IDMAP | attributes, 0, MS_PRIVATE, user_namespace)
        syscall("mount_setattr", tree, b"", _AT_EMPTY_PATH, wanted, len(wanted))
    except BaseException:
        os.close(tree)
        raise
    return tree


def _log_of(context: int) -> str:
    try:
        return os.read(context, 4096).decode(errors="replace").strip()
    except OSError:
        return ""
