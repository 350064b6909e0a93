"""Bounded disks: real loop devices and filesystems."""

import errno
import os
from pathlib import Path

import pytest

from cove.host.disks import LoopDisks
from cove.models.errors import CoveError
from cove.models.limits import MIB

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture
def disks(tmp_path: Path) -> LoopDisks:
    return LoopDisks(tmp_path / "disks", owner=1879048192)


def fill(mount: int, name: str, size: int) -> int:
    """Write until `size` or until the disk is full; returns the errno, 0 for none."""
    handle = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=mount)
    try:
        for _ in range(size // MIB):
            os.write(handle, bytes(MIB))
    except OSError as problem:
        return problem.errno or 0
    finally:
        os.close(handle)
    return 0


def test_a_disk_is_full_at_its_size_and_not_before(disks: LoopDisks) -> None:
    mount = disks.create("one", 64)
    try:
        assert fill(mount, "fits", 40 * MIB) == 0
        assert fill(mount, "too-much", 40 * MIB) == errno.ENOSPC
    finally:
        os.close(mount)


def test_a_disk_bounds_inodes(disks: LoopDisks) -> None:
    mount = disks.create("one", 64)
    try:
        problem = 0
        for number in range(10_000):
            try:
                os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=mount))
            except OSError as failure:
                problem = failure.errno or 0
                break
        assert problem == errno.ENOSPC
    finally:
        os.close(mount)


def test_a_disk_is_mounted_nowhere_and_frees_itself(disks: LoopDisks, tmp_path: Path) -> None:
    mount = disks.create("one", 64)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert disks.names() == {"one"}
    assert os.fstat(mount).st_uid == 1879048192
    os.close(mount)
    disks.remove("one")
    disks.remove("one")
    assert disks.names() == set()


def test_disks_do_not_share_content(disks: LoopDisks) -> None:
    first, second = disks.create("one", 64), disks.create("two", 64)
    try:
        os.close(os.open("mark", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=first))
        with pytest.raises(FileNotFoundError):
            os.stat("mark", dir_fd=second)
    finally:
        os.close(first)
        os.close(second)


def test_a_name_is_used_once(disks: LoopDisks) -> None:
    mount = disks.create("one", 64)
    os.close(mount)
    with pytest.raises(CoveError) as caught:
        disks.create("one", 64)
    assert caught.value.code == "CONFLICT"
