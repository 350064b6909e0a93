"""Bounded disks: real loop devices and filesystems."""

import errno
import os
import shutil
import subprocess
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


def files_until_full(mount: int, most: int) -> int:
    """How many files can be made, or `most`."""
    for number in range(most):
        try:
            os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=mount))
        except OSError as failure:
            assert failure.errno == errno.ENOSPC
            return number
    return most


@pytest.mark.parametrize(("size", "inodes", "most"), [(64, None, 64 * 64), (64, 512, 512), (600, 300, 300)])
def test_a_disk_bounds_inodes(disks: LoopDisks, size: int, inodes: int | None, most: int) -> None:
    mount = disks.create("one", size, inodes)
    try:
        assert os.fstatvfs(mount).f_files <= most
        assert most // 2 < files_until_full(mount, 10_000) < most
    finally:
        os.close(mount)


def test_a_large_disk_has_more_inodes_in_any_case(disks: LoopDisks) -> None:
    with pytest.raises(CoveError) as caught:
        disks.create("one", 16 * 1024, 256)
    assert caught.value.code == "LIMIT_NOT_ENFORCEABLE"
    assert "at least" in caught.value.remedy
    assert disks.names() == set()


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


def write(mount: int, name: str, content: bytes) -> None:
    handle = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=mount)
    os.write(handle, content)
    os.close(handle)


def read(mount: int, name: str) -> bytes:
    handle = os.open(name, os.O_RDONLY, dir_fd=mount)
    try:
        return os.read(handle, 100)
    finally:
        os.close(handle)


def test_a_disk_that_was_left_is_mounted_again_with_all_that_was_written(disks: LoopDisks) -> None:
    mount = disks.create("one", 64)
    for round_ in range(3):
        write(mount, f"file-{round_}", b"%d" % round_)
        os.close(mount)
        disks.settle("one")
        mount = disks.open("one")
    try:
        assert [read(mount, f"file-{number}") for number in range(3)] == [b"0", b"1", b"2"]
    finally:
        os.close(mount)
    disks.remove("one")
    assert not disks.exists("one")


def test_a_disk_is_never_mounted_twice(tmp_path: Path) -> None:
    disks = LoopDisks(tmp_path / "disks", owner=1879048192, detach_seconds=0.05)
    mount = disks.create("one", 64)
    try:
        for call in (disks.open, disks.settle):
            with pytest.raises(CoveError, match="still in use") as caught:
                call("one")
            assert caught.value.remedy
    finally:
        os.close(mount)
    LoopDisks(tmp_path / "disks", owner=1879048192).settle("one")


def test_a_disk_that_is_not_there(disks: LoopDisks, tmp_path: Path) -> None:
    disks.settle("none")
    with pytest.raises(CoveError) as caught:
        disks.open("none")
    assert caught.value.code == "SANDBOX_NOT_FOUND"
    (tmp_path / "disks/link.img").symlink_to("/dev/null")
    with pytest.raises(CoveError):
        disks.open("link")


def test_a_disk_that_was_in_use_when_the_power_went_is_repaired(disks: LoopDisks, tmp_path: Path) -> None:
    mount = disks.create("one", 64)
    write(mount, "file", b"kept")
    os.sync()
    shutil.copyfile(tmp_path / "disks/one.img", tmp_path / "disks/two.img")  # what is on the disk at this moment
    os.close(mount)
    assert (
        "not clean"
        in subprocess.run(
            ["dumpe2fs", "-h", str(tmp_path / "disks/two.img")], capture_output=True, text=True, check=True
        ).stdout
    )
    mount = disks.open("two")
    try:
        assert read(mount, "file") == b"kept"
        write(mount, "another", b"new")
    finally:
        os.close(mount)


@pytest.mark.parametrize("damage", [b"", b"\0" * 8192, os.urandom(1024 * 1024)])
def test_a_disk_that_is_damaged_is_refused_with_a_remedy(disks: LoopDisks, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "disks/bad.img").write_bytes(damage)
    with pytest.raises(CoveError) as caught:
        disks.open("bad")
    assert caught.value.code == "INTERNAL_ERROR"
    assert str(caught.value)
