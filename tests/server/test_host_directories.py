"""Directories of the server's machine, as archives: nothing outside of them is ever read."""

import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from cove.models.errors import CoveError, LimitExceeded, NotFound, PermissionRefused
from cove.server import host_directories
from cove.server.host_directories import HostDirectories


def _members(host: HostDirectories, path: Path | str) -> dict[str, bytes | None]:
    """Name -> content, or None for what is no file."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(host.archive(str(path))))) as archive:
        return {
            one.name: file.read() if (file := archive.extractfile(one)) and one.isfile() else None for one in archive
        }


@pytest.fixture
def top(tmp_path: Path) -> Path:
    path = tmp_path / "allowed"
    (path / "a" / "empty").mkdir(parents=True)
    (path / "a" / "file").write_bytes(b"x" * 300_000)
    (path / "a" / "near").symlink_to("file")
    (path / "a" / "far").symlink_to("/etc/passwd")
    (path / "a" / "up").symlink_to("../../secret")
    os.mkfifo(path / "a" / "fifo")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("hush")
    (path / "out").symlink_to(tmp_path / "secret")
    return path


def test_files_directories_and_links_that_stay_inside_are_copied(top: Path) -> None:
    expected = {"empty": None, "file": b"x" * 300_000, "near": None}
    assert _members(HostDirectories([top]), top / "a") == expected
    assert set(_members(HostDirectories([top]), top)) == {"a", "a/empty", "a/file", "a/near"}
    assert _members(HostDirectories([top / "other", top]), f"{top}//a/./empty") == {}


@pytest.mark.parametrize(
    "path", ["/", "", "relative", "{top}/..", "{top}/../secret", "{top}x", "{top}\0", "{top}/a/../.."]
)
def test_what_is_not_below_an_allowed_directory(top: Path, path: str) -> None:
    with pytest.raises(PermissionRefused) as refused:
        HostDirectories([top]).archive(path.replace("{top}", str(top)))
    assert refused.value.code == "PATH_NOT_ALLOWED"
    with pytest.raises(PermissionRefused):
        HostDirectories([]).archive(str(top))


@pytest.mark.parametrize("name", ["out", "out/..", "missing", "a/file", "a/near", "a/up"])
def test_links_are_not_followed(top: Path, name: str) -> None:
    with pytest.raises((NotFound, PermissionRefused)):
        _members(HostDirectories([top]), f"{top}/{name}")


def test_a_directory_that_is_exchanged_for_a_link_while_it_is_read(top: Path, tmp_path: Path) -> None:
    pieces = HostDirectories([top]).archive(str(top))
    # The first piece comes after the large file, before its directory's directories are entered.
    read = next(pieces)
    (top / "a" / "empty").rmdir()
    (top / "a" / "empty").symlink_to(tmp_path / "secret")
    with suppress(CoveError):
        read += b"".join(pieces)
    assert b"hush" not in read


def test_large_directories_are_refused(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(host_directories, "MAX_VOLUME_BYTES", 200_000)
    with pytest.raises(LimitExceeded):
        _members(HostDirectories([top]), top)
    monkeypatch.setattr(host_directories, "MAX_VOLUME_ENTRIES", 1)
    with pytest.raises(LimitExceeded):
        _members(HostDirectories([top]), top)
    assert len(os.listdir("/proc/self/fd")) == before
