from __future__ import annotations

import asyncio  # async only
import hashlib
import os
import resource
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from cove import AsyncSandbox
from cove.models.errors import CoveError, InvalidRequest, LimitExceeded, NotFound
from cove.sdk import _requests

if TYPE_CHECKING:
    from tests.sdk.conftest import Planes

pytestmark = pytest.mark.anyio  # async only

# The server runs in this process too: what counts is that nothing holds the whole file.
BOUND_KB = 60_000


async def test_text_and_bytes(planes: Planes) -> None:
    async with AsyncSandbox.create() as sandbox:
        written = await sandbox.files.write("/workspace/ä b&c#d.txt", "héllo", mode="0600")
        assert (written.path, written.message, written.timestamp) == ("/workspace/ä b&c#d.txt", "utf-8", "0600")
        assert await sandbox.files.read("/workspace/ä b&c#d.txt") == "héllo"
        assert await sandbox.files.read_bytes(PurePosixPath("/workspace/ä b&c#d.txt")) == "héllo".encode()
        assert await sandbox.files.exists("/workspace/ä b&c#d.txt")
        assert [entry.name for entry in await sandbox.files.list()] == ["ä b&c#d.txt"]
        await sandbox.files.remove("/workspace/ä b&c#d.txt")
        assert not await sandbox.files.exists("/workspace/ä b&c#d.txt")
        await sandbox.files.mkdir("/workspace/new")


async def test_bytes_travel_as_base64(planes: Planes) -> None:
    async with AsyncSandbox.create() as sandbox:
        await sandbox.files.write_bytes("b", b"\xff\x00", overwrite=False)
    (seen,) = planes.to("/files/write")
    assert seen.json() == {"path": "b", "content": "/wA=", "mode": "0644", "encoding": "base64", "overwrite": False}


async def test_a_file_that_is_not_text_is_said(planes: Planes) -> None:
    planes.files["/x"] = b"\xff\xfe"
    async with AsyncSandbox.create() as sandbox:
        with pytest.raises(InvalidRequest, match="read_bytes"):
            await sandbox.files.read("/x")
        assert await sandbox.files.read_bytes("/x") == b"\xff\xfe"


async def test_a_missing_file_is_not_found(planes: Planes, tmp_path: Path) -> None:
    async with AsyncSandbox.create() as sandbox:
        for operation in (sandbox.files.read, sandbox.files.read_bytes, sandbox.files.remove):
            with pytest.raises(NotFound) as caught:
                await operation("/missing")
            assert caught.value.code == "FILE_NOT_FOUND"
        with pytest.raises(NotFound):
            await sandbox.files.download("/missing", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800"])
async def test_bad_paths_reach_no_agent(planes: Planes, path: str) -> None:
    async with AsyncSandbox.create() as sandbox:
        for operation in (sandbox.files.read, sandbox.files.list, sandbox.files.exists, sandbox.files.mkdir):
            with pytest.raises(InvalidRequest):
                await operation(path)
    assert len(planes.seen) == 2


async def test_a_cut_list_is_said(planes: Planes) -> None:
    async with AsyncSandbox.create() as sandbox:
        with pytest.raises(LimitExceeded, match="more than"):
            await sandbox.files.list("/huge")


async def test_upload_and_download(planes: Planes, tmp_path: Path) -> None:
    local = tmp_path / "local.bin"
    content = os.urandom(700_001)
    local.write_bytes(content)
    planes.files["/remote"] = content
    async with AsyncSandbox.create() as sandbox:
        sent = await sandbox.files.upload(local, "/workspace/ö\r\n.bin")
        copy = await sandbox.files.download("/remote", tmp_path / "copy.bin")
    assert sent.size == len(content)
    assert planes.uploaded == {"/workspace/ö\r\n.bin": (len(content), hashlib.sha256(content).hexdigest())}
    assert copy.read_bytes() == content
    assert copy.stat().st_mode & 0o777 == 0o644
    assert sorted(tmp_path.iterdir()) == [copy, local]


async def test_an_upload_survives_an_expired_token(planes: Planes, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"content")
    async with AsyncSandbox.create() as sandbox:
        planes.valid_tokens.clear()
        await sandbox.files.upload(local, "/a")
        planes.valid_tokens.clear()
        planes.files["/b"] = b"remote"
        await sandbox.files.download("/b", tmp_path / "b")
    assert planes.uploaded["/a"] == (7, hashlib.sha256(b"content").hexdigest())
    assert (tmp_path / "b").read_bytes() == b"remote"


async def test_upload_holds_no_whole_file(planes: Planes, sparse_file: Path) -> None:
    async with AsyncSandbox.create() as sandbox:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await sandbox.files.upload(sparse_file, "/big")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert planes.uploaded["/big"][0] == sparse_file.stat().st_size
    assert after - before < BOUND_KB


async def test_download_holds_no_whole_file(planes: Planes, tmp_path: Path) -> None:
    async with AsyncSandbox.create() as sandbox:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        copy = await sandbox.files.download("/big/200000000", tmp_path / "copy")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert copy.stat().st_size == 200_000_000
    assert after - before < BOUND_KB
    copy.unlink()


async def test_a_download_is_bounded_and_leaves_nothing_when_refused(planes: Planes, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.write_text("old")
    async with AsyncSandbox.create() as sandbox:
        with pytest.raises(LimitExceeded):
            await sandbox.files.download("/big/5000000", target, max_bytes=1_000_000)
        assert target.read_text() == "old"
        assert (await sandbox.run_code("still usable")).success
    assert [*tmp_path.iterdir()] == [target]


async def test_read_is_bounded(planes: Planes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_requests, "MAX_READ_BYTES", 1_000_000)
    async with AsyncSandbox.create() as sandbox:
        assert len(await sandbox.files.read_bytes("/big/1000000")) == 1_000_000
        with pytest.raises(LimitExceeded, match=r"files\.download"):
            await sandbox.files.read_bytes("/big/1000001")


async def test_write_is_bounded(planes: Planes) -> None:
    async with AsyncSandbox.create() as sandbox:
        with pytest.raises(LimitExceeded, match="upload"):
            await sandbox.files.write_bytes("/x", bytes(64 * 1024 * 1024 + 1))
    assert planes.to("/files/write") == []


async def test_local_trouble_is_said_before_anything_is_sent(planes: Planes, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with AsyncSandbox.create() as sandbox:
        with pytest.raises(FileNotFoundError):
            await sandbox.files.upload(tmp_path / "missing", "/a")
        for path in (fifo, tmp_path):
            with pytest.raises((InvalidRequest, IsADirectoryError)):
                await sandbox.files.upload(path, "/a")
        with pytest.raises(InvalidRequest, match="timeout"):
            await sandbox.files.upload(fifo, "/a", timeout=float("nan"))
        with pytest.raises(FileNotFoundError):
            await sandbox.files.download("/big/10", tmp_path / "no" / "directory")
        assert (await sandbox.run_code("still usable")).success
    assert planes.uploaded == {}


async def test_many_calls_at_once_do_not_mix(planes: Planes) -> None:  # async only
    async with AsyncSandbox.create() as sandbox:  # async only
        codes = [f"marker {number}" for number in range(40)]  # async only
        results = await asyncio.gather(*(sandbox.run_code(code) for code in codes))  # async only
    assert [result.stdout for result in results] == codes  # async only


async def test_an_upload_that_takes_too_long_ends(planes: Planes, sparse_file: Path) -> None:
    async with AsyncSandbox.create() as sandbox:
        with pytest.raises(CoveError) as caught:
            await sandbox.files.upload(sparse_file, "/big", timeout=0.01)
    assert caught.value.code == "TIMEOUT"
