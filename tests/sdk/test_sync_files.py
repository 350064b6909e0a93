# Generated from tests/sdk/test_async_files.py by tools/generate_sync_sdk.py. Do not edit.

from __future__ import annotations

import hashlib
import os
import resource
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from cove import Sandbox
from cove.models.errors import CoveError, InvalidRequest, LimitExceeded, NotFound
from cove.sdk import _requests

if TYPE_CHECKING:
    from tests.sdk.conftest import Planes


# The server runs in this process too: what counts is that nothing holds the whole file.
BOUND_KB = 60_000


def test_text_and_bytes(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        written = sandbox.files.write("/workspace/ä b&c#d.txt", "héllo", mode="0600")
        assert (written.path, written.message, written.timestamp) == ("/workspace/ä b&c#d.txt", "utf-8", "0600")
        assert sandbox.files.read("/workspace/ä b&c#d.txt") == "héllo"
        assert sandbox.files.read_bytes(PurePosixPath("/workspace/ä b&c#d.txt")) == "héllo".encode()
        assert sandbox.files.exists("/workspace/ä b&c#d.txt")
        assert [entry.name for entry in sandbox.files.list()] == ["ä b&c#d.txt"]
        sandbox.files.remove("/workspace/ä b&c#d.txt")
        assert not sandbox.files.exists("/workspace/ä b&c#d.txt")
        sandbox.files.mkdir("/workspace/new")


def test_bytes_travel_as_base64(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        sandbox.files.write_bytes("b", b"\xff\x00", overwrite=False)
    (seen,) = planes.to("/files/write")
    assert seen.json() == {"path": "b", "content": "/wA=", "mode": "0644", "encoding": "base64", "overwrite": False}


def test_a_file_that_is_not_text_is_said(planes: Planes) -> None:
    planes.files["/x"] = b"\xff\xfe"
    with Sandbox.create() as sandbox:
        with pytest.raises(InvalidRequest, match="read_bytes"):
            sandbox.files.read("/x")
        assert sandbox.files.read_bytes("/x") == b"\xff\xfe"


def test_a_missing_file_is_not_found(planes: Planes, tmp_path: Path) -> None:
    with Sandbox.create() as sandbox:
        for operation in (sandbox.files.read, sandbox.files.read_bytes, sandbox.files.remove):
            with pytest.raises(NotFound) as caught:
                operation("/missing")
            assert caught.value.code == "FILE_NOT_FOUND"
        with pytest.raises(NotFound):
            sandbox.files.download("/missing", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800"])
def test_bad_paths_reach_no_agent(planes: Planes, path: str) -> None:
    with Sandbox.create() as sandbox:
        for operation in (sandbox.files.read, sandbox.files.list, sandbox.files.exists, sandbox.files.mkdir):
            with pytest.raises(InvalidRequest):
                operation(path)
    assert len(planes.seen) == 2


def test_a_cut_list_is_said(planes: Planes) -> None:
    with Sandbox.create() as sandbox, pytest.raises(LimitExceeded, match="more than"):
        sandbox.files.list("/huge")


def test_upload_and_download(planes: Planes, tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    content = os.urandom(700_001)
    local.write_bytes(content)
    planes.files["/remote"] = content
    with Sandbox.create() as sandbox:
        sent = sandbox.files.upload(local, "/workspace/ö\r\n.bin")
        copy = sandbox.files.download("/remote", tmp_path / "copy.bin")
    assert sent.size == len(content)
    assert planes.uploaded == {"/workspace/ö\r\n.bin": (len(content), hashlib.sha256(content).hexdigest())}
    assert copy.read_bytes() == content
    assert copy.stat().st_mode & 0o777 == 0o644
    assert sorted(tmp_path.iterdir()) == [copy, local]


def test_an_upload_survives_an_expired_token(planes: Planes, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"content")
    with Sandbox.create() as sandbox:
        planes.valid_tokens.clear()
        sandbox.files.upload(local, "/a")
        planes.valid_tokens.clear()
        planes.files["/b"] = b"remote"
        sandbox.files.download("/b", tmp_path / "b")
    assert planes.uploaded["/a"] == (7, hashlib.sha256(b"content").hexdigest())
    assert (tmp_path / "b").read_bytes() == b"remote"


def test_upload_holds_no_whole_file(planes: Planes, sparse_file: Path) -> None:
    with Sandbox.create() as sandbox:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sandbox.files.upload(sparse_file, "/big")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert planes.uploaded["/big"][0] == sparse_file.stat().st_size
    assert after - before < BOUND_KB


def test_download_holds_no_whole_file(planes: Planes, tmp_path: Path) -> None:
    with Sandbox.create() as sandbox:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        copy = sandbox.files.download("/big/200000000", tmp_path / "copy")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert copy.stat().st_size == 200_000_000
    assert after - before < BOUND_KB
    copy.unlink()


def test_a_download_is_bounded_and_leaves_nothing_when_refused(planes: Planes, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.write_text("old")
    with Sandbox.create() as sandbox:
        with pytest.raises(LimitExceeded):
            sandbox.files.download("/big/5000000", target, max_bytes=1_000_000)
        assert target.read_text() == "old"
        assert (sandbox.run_code("still usable")).success
    assert [*tmp_path.iterdir()] == [target]


def test_read_is_bounded(planes: Planes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_requests, "MAX_READ_BYTES", 1_000_000)
    with Sandbox.create() as sandbox:
        assert len(sandbox.files.read_bytes("/big/1000000")) == 1_000_000
        with pytest.raises(LimitExceeded, match=r"files\.download"):
            sandbox.files.read_bytes("/big/1000001")


def test_write_is_bounded(planes: Planes) -> None:
    with Sandbox.create() as sandbox, pytest.raises(LimitExceeded, match="upload"):
        sandbox.files.write_bytes("/x", bytes(64 * 1024 * 1024 + 1))
    assert planes.to("/files/write") == []


def test_local_trouble_is_said_before_anything_is_sent(planes: Planes, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Sandbox.create() as sandbox:
        with pytest.raises(FileNotFoundError):
            sandbox.files.upload(tmp_path / "missing", "/a")
        for path in (fifo, tmp_path):
            with pytest.raises((InvalidRequest, IsADirectoryError)):
                sandbox.files.upload(path, "/a")
        with pytest.raises(InvalidRequest, match="timeout"):
            sandbox.files.upload(fifo, "/a", timeout=float("nan"))
        with pytest.raises(FileNotFoundError):
            sandbox.files.download("/big/10", tmp_path / "no" / "directory")
        assert (sandbox.run_code("still usable")).success
    assert planes.uploaded == {}


def test_an_upload_that_takes_too_long_ends(planes: Planes, sparse_file: Path) -> None:
    with Sandbox.create() as sandbox, pytest.raises(CoveError) as caught:
        sandbox.files.upload(sparse_file, "/big", timeout=0.01)
    assert caught.value.code == "TIMEOUT"
