"""A template's layers for a sandbox whose programs run as root: mounts in which that root owns the files.

No host id that owns layers is ever taken by a program. So the owner on the disk is mapped to the root of the one
sandbox, in mounts of its own (mount_setattr(2), MOUNT_ATTR_IDMAP); the layers themselves stay as they are.
"""

import asyncio
import os
import re
import signal
from typing import Final

from cove.drivers.namespace.birth import write_id_maps
from cove.drivers.namespace.warm import WarmProcess, close_all
from cove.host.identities import layer_map, own_root
from cove.linux.clone import pid_of_pidfd, signal_process
from cove.linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, id_mapped_copy
from cove.models.errors import CoveError, error

_OLDEST: Final = (5, 19)
"""Before it, overlayfs could not have such mounts as layers."""

_ATTRIBUTES: Final = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV


async def own_layers(warm: WarmProcess, slot: int) -> tuple[int, ...]:
    """Mounts of the layers of `warm`'s template, topmost first, attached nowhere.

    Returns:
        Descriptors; whoever calls closes them.

    Raises:
        CoveError: UNSUPPORTED when this host cannot do that, SANDBOX_START_FAILED. Nothing is left behind.
    """
    if not kernel_can_map_layers():
        raise _unsupported(f"this kernel is older than {_OLDEST[0]}.{_OLDEST[1]}")
    namespace = await _namespace(warm, layer_map(slot))
    made: list[int] = []
    try:
        for layer in warm.template.layers:
            made.append(id_mapped_copy(layer, namespace, _ATTRIBUTES))
    except OSError as problem:
        close_all(made)
        raise _unsupported(str(problem)) from problem
    finally:
        os.close(namespace)
    return tuple(made)


def give_to_root(disk: int, slot: int) -> None:
    """Make the root of a mounted disk the own root's.

    Raises:
        CoveError: SANDBOX_START_FAILED.
    """
    user = own_root(slot)
    try:
        os.chown(".", user, user, dir_fd=disk, follow_symlinks=False)
    except OSError as problem:
        raise error("SANDBOX_START_FAILED", f"The sandbox's disk cannot be written: {problem}.") from problem


async def _namespace(warm: WarmProcess, maps: str) -> int:
    """A descriptor of a user namespace with these maps, in which nobody is."""
    holding = asyncio.ensure_future(warm.hold())
    try:
        pidfd = await asyncio.shield(holding)
    except asyncio.CancelledError:
        holding.add_done_callback(_let_go)
        raise
    try:
        pid = pid_of_pidfd(pidfd)
        write_id_maps(pid, maps)
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        if pid_of_pidfd(pidfd) != pid:  # it has ended: what was opened may be another's
            os.close(namespace)
            raise error("SANDBOX_START_FAILED", "The process that held a user namespace has ended.")
    except OSError as problem:
        raise error("SANDBOX_START_FAILED", f"There is no user namespace for the layers: {problem}.") from problem
    finally:
        signal_process(pidfd, signal.SIGKILL)
        os.close(pidfd)
    return namespace


def _let_go(holding: asyncio.Future[int]) -> None:
    if not holding.cancelled() and holding.exception() is None:
        os.close(holding.result())


def kernel_can_map_layers() -> bool:
    """Whether this kernel is new enough; the filesystem of the layers has to be able to do it too."""
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2]) >= _OLDEST


def _unsupported(why: str) -> CoveError:
    return error(
        "UNSUPPORTED",
        f"This host cannot run programs of a sandbox as root: {why}.",
        remedy="It takes Linux 5.19 and a data directory on ext4, xfs, btrfs or tmpfs; or use a template without"
        " `run_as_root`.",
    )
