"""Writable disks of sandboxes: a sparse ext4 image a sandbox, so that bytes and inodes are bounded by a real disk.

The image is a copy of a formatted, empty one (85 KiB of data for 2 GiB): copy, attach and mount take 2 ms where
mkfs takes 10 more. It is mounted nowhere on the host: the sandbox's mount namespace holds it, and the loop device
frees itself when that ends, however it ends. A stopped sandbox's image stays; it is mounted again at its start.
"""

import errno
import os
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from cove.linux.loop import attach_file
from cove.linux.mounts import MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, new_filesystem
from cove.models.errors import CoveError, error
from cove.models.limits import INODES_PER_MB, MIB

_FORMAT_SECONDS: Final = 60
_INODE_BYTES: Final = 256
_MOST_BLANKS: Final = 32
_DETACH_SECONDS: Final = 10.0
_DETACH_PAUSE: Final = 0.005
_REPAIR_SECONDS: Final = 60
_REPAIRED: Final = (0, 1)  # e2fsck(8): clean; errors corrected
_SUPERBLOCK: Final = 1024
# s_inodes_count, s_blocks_count, s_log_block_size, s_blocks_per_group
_COUNTS: Final = struct.Struct("<II16xI4xI")
# ext4 superblock at byte 1024: s_magic and s_state (kernel: Documentation/filesystems/ext4/super.rst)
_STATE_AT: Final = 1024 + 0x38
_STATE: Final = struct.Struct("<HH")
_CLEAN: Final = (0xEF53, 1)
_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"


class LoopDisks:
    """Makes, finds and removes disk images below one directory."""

    def __init__(self, directory: Path, *, owner: int, detach_seconds: float = _DETACH_SECONDS) -> None:
        """
        Args:
            owner: host user and group id that owns the root of each new filesystem.
            detach_seconds: how long an image may stay in use after its sandbox has ended.
        """
        self._detach_seconds = detach_seconds
        self._directory = directory
        self._owner = owner
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self, name: str, size_mb: int, inodes: int | None = None) -> int:
        """A new disk.

        Args:
            name: of its image; must not exist.
            size_mb: MiB, the filesystem's own structures included.
            inodes: at most so many, the filesystem's own dozen included; None: `INODES_PER_MB` for each MiB.

        Returns:
            The descriptor of the mounted filesystem, which is attached nowhere yet.

        Raises:
            CoveError: DISK_FULL, LIMIT_NOT_ENFORCEABLE (no loop device, no mkfs.ext4, or a disk of that size has
                more inodes in any case).
        """
        blank = self._blank(size_mb, inodes)
        image = self._image(name)
        try:
            file = _copy_sparse(blank, image)
            try:
                return _mount_image(file)
            finally:
                os.close(file)
        except OSError as problem:
            self.remove(name)
            raise _explain(problem) from problem

    def open(self, name: str) -> int:
        """Mount an image again that `settle` has left, and repair it first if it was not unmounted in order.

        Returns:
            As `create`.

        Raises:
            CoveError: SANDBOX_NOT_FOUND when there is no such image; INTERNAL_ERROR when it is in use or cannot be
                repaired; LIMIT_NOT_ENFORCEABLE.
        """
        self._await_detached(name)
        if not self.exists(name):
            raise error("SANDBOX_NOT_FOUND", "The disk of this sandbox was not found.")
        file = os.open(self._image(name), os.O_RDWR | os.O_CLOEXEC)
        try:
            if _STATE.unpack(os.pread(file, _STATE.size, _STATE_AT)) != _CLEAN:
                _repair(self._image(name))
            return _mount_image(file)
        except (OSError, struct.error) as problem:
            raise error("INTERNAL_ERROR", f"The disk of this sandbox cannot be mounted: {problem}.") from problem
        finally:
            os.close(file)

    def settle(self, name: str) -> None:
        """Wait until the last user of an image has let go of it, and until all that was written is on the host's
        disk. Fine when there is no such image.

        Raises:
            CoveError: INTERNAL_ERROR when it is still in use after a while.
        """
        self._await_detached(name)
        if not self.exists(name):
            return
        file = os.open(self._image(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def exists(self, name: str) -> bool:
        """Whether there is an image of that name."""
        image = self._image(name)
        return image.is_file() and not image.is_symlink()

    def _await_detached(self, name: str) -> None:
        """The kernel unmounts when the mount namespace is gone, a moment after the sandbox's last process; a second
        mount beside the first one would destroy the filesystem."""
        image = str(self._image(name).resolve())
        deadline = time.monotonic() + self._detach_seconds
        while _is_attached(image):
            if time.monotonic() > deadline:
                raise error(
                    "INTERNAL_ERROR",
                    f"The disk of this sandbox is still in use after {self._detach_seconds:.0f} s.",
                    remedy="A process of it may be stuck in the kernel (state D in `ps`); try again later.",
                )
            time.sleep(_DETACH_PAUSE)

    def remove(self, name: str) -> None:
        """Delete an image; its space is freed with the last mount namespace that holds it. Idempotent."""
        self._image(name).unlink(missing_ok=True)

    def names(self) -> set[str]:
        """All images that exist."""
        return {path.stem for path in self._directory.glob("*.img") if not path.name.startswith("blank-")}

    def used_bytes(self, name: str) -> int:
        """What the image takes of the host's disk."""
        try:
            return self._image(name).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def _image(self, name: str) -> Path:
        return self._directory / f"{name}.img"

    def _blank(self, size_mb: int, inodes: int | None) -> Path:
        kind = f"{size_mb}" if inodes is None else f"{size_mb}-{inodes}"
        blank = self._directory / f"blank-{kind}-{self._owner}.img"
        try:
            os.utime(blank)
        except FileNotFoundError:
            self._format(blank, size_mb, inodes)
            self._forget_old_blanks()
        return blank

    def _forget_old_blanks(self) -> None:
        """Whoever may choose sizes must not fill the host's disk with one blank for each."""
        found = sorted(self._directory.glob("blank-*.img"), key=lambda path: path.stat().st_mtime_ns)
        for blank in found[:-_MOST_BLANKS]:
            blank.unlink(missing_ok=True)

    def _format(self, blank: Path, size_mb: int, inodes: int | None) -> None:
        with tempfile.TemporaryDirectory(dir=self._directory) as scratch:
            image = Path(scratch) / "image"
            with image.open("wb") as file:
                file.truncate(size_mb * MIB)
            if inodes is None:
                self._make_filesystem(image, ("-i", str(MIB // INODES_PER_MB)))
            else:
                self._make_with_inodes(image, size_mb, inodes)
            image.rename(blank)

    def _make_with_inodes(self, image: Path, size_mb: int, inodes: int) -> None:
        """mke2fs(8) rounds up, to the same number in each group of blocks: what is too many is taken off again."""
        self._make_filesystem(image, ("-N", str(inodes)))
        made, unit = _inodes_of(image)
        if made > inodes and inodes >= unit:
            self._make_filesystem(image, ("-N", str(inodes // unit * unit)))
            made, unit = _inodes_of(image)
        if made > inodes:
            raise error(
                "LIMIT_NOT_ENFORCEABLE",
                f"A disk of {size_mb} MiB has at least {unit} inodes, more than {inodes}.",
                remedy=f"Ask for at least {unit} inodes, or for a smaller disk.",
                limits=["inodes"],
            )

    def _make_filesystem(self, image: Path, inodes: tuple[str, str]) -> None:
        command = [
            *("mkfs.ext4", "-q", "-F", "-m", "0", "-I", str(_INODE_BYTES), *inodes),
            # No journal: the disk does not outlive a crash of the host. Lazy: nothing is written ahead.
            *("-O", "^has_journal,^resize_inode,^metadata_csum,uninit_bg"),
            *("-E", f"lazy_itable_init=1,nodiscard,root_owner={self._owner}:{self._owner}"),
            str(image),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_FORMAT_SECONDS, env={"PATH": _PATH})
        except FileNotFoundError:
            raise error("LIMIT_NOT_ENFORCEABLE", "mkfs.ext4 is missing.", remedy="apt-get install e2fsprogs") from None
        except subprocess.CalledProcessError as problem:
            text = problem.stderr.decode(errors="replace").strip()
            code = "DISK_FULL" if "No space left" in text else "LIMIT_NOT_ENFORCEABLE"
            raise error(code, f"mkfs.ext4 failed: {text}") from problem


def _inodes_of(image: Path) -> tuple[int, int]:
    """How many inodes a filesystem has, and the step in which that number grows: as many in each group of blocks as
    fill whole blocks of 8 at least."""
    with image.open("rb") as file:
        total, blocks, size, per_group = _COUNTS.unpack(os.pread(file.fileno(), _COUNTS.size, _SUPERBLOCK))
    groups = -(-blocks // per_group)
    return total, groups * max(8, (1024 << size) // _INODE_BYTES)


def _copy_sparse(source: Path, target: Path) -> int:
    """Copy only what is data; returns the open target."""
    origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(copy, os.fstat(origin).st_size)
            _copy_extents(origin, copy)
        except OSError:
            os.close(copy)
            raise
        return copy
    finally:
        os.close(origin)


def _copy_extents(origin: int, copy: int) -> None:
    position = 0
    while True:
        try:
            start = os.lseek(origin, position, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno == errno.ENXIO:  # no data behind this position
                return
            raise
        position = os.lseek(origin, start, os.SEEK_HOLE)
        os.pwrite(copy, os.pread(origin, position - start, start), start)


def _mount_image(file: int) -> int:
    device, path = attach_file(file)
    try:
        return new_filesystem("ext4", {"source": path}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME)
    finally:
        os.close(device)


def _is_attached(image: str) -> bool:
    """Whether a loop device has this file (loop(4); kernel: Documentation/ABI/testing/sysfs-block-loop)."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text(encoding="utf-8", errors="replace").rstrip("\n") == image:
                return True
        except OSError:
            continue  # it was freed meanwhile
    return False


def _repair(image: Path) -> None:
    """Bring a filesystem in order that was in use when the machine went down (e2fsck(8), `-p`: only what is safe)."""
    command = ["e2fsck", "-p", "-f", str(image)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_REPAIR_SECONDS, env={"PATH": _PATH}, check=False)
    except FileNotFoundError:
        raise error("LIMIT_NOT_ENFORCEABLE", "e2fsck is missing.", remedy="apt-get install e2fsprogs") from None
    except subprocess.TimeoutExpired:
        raise error("INTERNAL_ERROR", f"The disk's repair took longer than {_REPAIR_SECONDS} s.") from None
    if done.returncode not in _REPAIRED:
        raise error(
            "INTERNAL_ERROR",
            "The disk of this sandbox was in use when the machine went down, and cannot be repaired safely.",
            remedy=f"Delete the sandbox, or repair the disk by hand: e2fsck -f {image}",
        )


def _explain(problem: OSError) -> CoveError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return error("DISK_FULL", f"No room for a sandbox's disk: {problem.strerror}.")
    if problem.errno == errno.EEXIST:
        return error("CONFLICT", f"A disk of that name exists: {problem.filename}.")
    return error(
        "LIMIT_NOT_ENFORCEABLE",
        f"A disk of bounded size cannot be made: {problem}.",
        remedy="Loop devices are needed: modprobe loop; /dev/loop-control must be accessible.",
    )
