"""Whole directories in and out of a sandbox, against a real server."""

import os
import time
from pathlib import Path

import pytest
from tests.e2e.running_server import RunningServer

from cove import AsyncSandbox
from cove.models.errors import Conflict, InvalidRequest, LimitExceeded, NotFound

pytestmark = pytest.mark.anyio  # async only

SMALL_FILES = 580


@pytest.fixture(autouse=True)
def use_the_server(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_BASE_URL", server.url)
    monkeypatch.delenv("COVE_API_KEY", raising=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with everything that makes copies hard."""
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (root / "run.sh").chmod(0o755)
    (root / "deep" / "er" / "näme & # + % \N{SNAKE}.txt").write_bytes(b"\0\xff" * 1000)
    (root / "nothing").touch()
    (root / "big.bin").write_bytes(os.urandom(3_000_001))
    (root / "link").symlink_to("run.sh")
    (root / "deep" / "up").symlink_to("../nothing")
    (root / "dangling").symlink_to("deep/not there")
    long = "x" * 120
    (root / long).mkdir()
    (root / long / long).write_text("long")
    return root


async def test_a_directory_comes_back_as_it_was(tree: Path, tmp_path: Path) -> None:
    async with AsyncSandbox.create("base") as sandbox:
        sent = await sandbox.files.upload(tree, "/workspace/new/tree")
        assert sent.path == "/workspace/new/tree"
        ran = await sandbox.commands.run(
            "new/tree/run.sh && readlink new/tree/link && test -d new/tree/empty && echo ok"
        )
        assert ran.stdout == "ran\nrun.sh\nok\n"
        received = await sandbox.files.download_dir("new/tree", tmp_path / "back" / "tree")
        assert _content(tmp_path / "back" / "tree") == _content(tree)
        assert (received.entries, received.skipped) == (len(_content(tree)), ())
        assert received.size == sent.size


async def test_upload_and_download_take_both_kinds(tree: Path, tmp_path: Path) -> None:
    async with AsyncSandbox.create("base") as sandbox:
        await sandbox.files.upload(tree / "run.sh", "/workspace/run.sh")
        await sandbox.files.upload(tree, "/workspace/tree")
        assert await sandbox.files.download("/workspace/run.sh", tmp_path / "one") == tmp_path / "one"
        assert await sandbox.files.download("/workspace/tree", tmp_path / "all") == tmp_path / "all"
        assert (tmp_path / "one").read_text() == (tree / "run.sh").read_text()
        assert _content(tmp_path / "all") == _content(tree)


async def test_what_cannot_be_copied_is_left_out_and_named(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    os.mkfifo(odd / "fifo")
    (odd / "outside").symlink_to("/etc/passwd")
    (odd / "above").symlink_to("../../x")
    (odd / "file").write_text("x")
    async with AsyncSandbox.create("base") as sandbox:
        sent = await sandbox.files.upload_dir(odd, "/workspace/odd")
        assert [left.path for left in sent.skipped] == ["above", "fifo", "outside"]
        assert (sent.entries, sent.size) == (1, 1)
        await sandbox.commands.run("mkfifo odd/fifo; ln -s /etc/passwd odd/outside; ln -s ../.. odd/above")
        received = await sandbox.files.download_dir("/workspace/odd", tmp_path / "back")
        assert sorted(left.path for left in received.skipped) == ["above", "outside"]
        assert [path.name for path in (tmp_path / "back").iterdir()] == ["file"]


async def test_many_small_files_take_no_time(tmp_path: Path) -> None:
    many = tmp_path / "many"
    for number in range(SMALL_FILES):
        path = many / f"d{number % 20}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 500)
    async with AsyncSandbox.create("base") as sandbox:
        began = time.monotonic()
        sent = await sandbox.files.upload_dir(many, "/workspace/many")
        uploaded = time.monotonic()
        received = await sandbox.files.download_dir("/workspace/many", tmp_path / "back")
        assert sent.entries == received.entries == SMALL_FILES + 20
        assert uploaded - began < 2
        assert time.monotonic() - uploaded < 2
        assert _content(tmp_path / "back") == _content(many)


async def test_progress_is_told(tree: Path, tmp_path: Path) -> None:
    async with AsyncSandbox.create("base") as sandbox:
        up: list[int] = []
        down: list[int] = []
        await sandbox.files.upload(tree / "big.bin", "big.bin", on_progress=up.append)
        await sandbox.files.download("big.bin", tmp_path / "big.bin", on_progress=down.append)
        assert up == sorted(up)
        assert (up[-1], down[-1]) == (3_000_001, 3_000_001)
        assert len(up) > 5
        up.clear()
        await sandbox.files.upload_dir(tree, "tree", on_progress=up.append)
        assert up[-1] > 3_000_001


async def test_many_files_from_memory() -> None:
    async with AsyncSandbox.create("base") as sandbox:
        done = await sandbox.files.write_many([("a/b.txt", "é"), ("/tmp/c.bin", b"\0\1"), (Path("d"), "")], mode="0750")
        assert done.entries == 3
        assert await sandbox.files.read("/workspace/a/b.txt") == "é"
        assert await sandbox.files.read_bytes("/tmp/c.bin") == b"\0\1"
        assert (await sandbox.commands.run("stat -c %a d")).stdout == "750\n"
        await sandbox.files.write_many({"a/b.txt": "replaced"})
        assert await sandbox.files.read("a/b.txt") == "replaced"
        for path in ("../x", "a/../../x", "", "a/"):
            with pytest.raises(InvalidRequest):
                await sandbox.files.write_many([(path, "x")])
        with pytest.raises(InvalidRequest, match="mode"):
            await sandbox.files.write_many([("x", "x")], mode="rwx")
        with pytest.raises(LimitExceeded, match="bytes"):
            await sandbox.files.write_many([("x", bytes(64 * 1024 * 1024)), ("y", b"1")])


async def test_what_is_not_there_makes_nothing_here(tmp_path: Path) -> None:
    async with AsyncSandbox.create("base") as sandbox:
        with pytest.raises(NotFound):
            await sandbox.files.download_dir("/workspace/nothing", tmp_path / "x")
        with pytest.raises(NotFound):
            await sandbox.files.download("/workspace/nothing", tmp_path / "x")
        with pytest.raises(InvalidRequest):
            await sandbox.files.download("/dev/null", tmp_path / "x")
        with pytest.raises(NotADirectoryError):
            await sandbox.files.upload_dir(tmp_path / "nothing", "/workspace/x")
        assert not (tmp_path / "x").exists()


async def test_more_than_was_allowed_is_refused(tree: Path, tmp_path: Path) -> None:
    async with AsyncSandbox.create("base") as sandbox:
        await sandbox.files.upload(tree, "tree")
        with pytest.raises(LimitExceeded, match="larger"):
            await sandbox.files.download_dir("tree", tmp_path / "back", max_bytes=100_000)
        assert [*(tmp_path / "back").rglob(".*")] == []


async def test_links_of_ours_are_not_followed(tree: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "deep").symlink_to(elsewhere)
    async with AsyncSandbox.create("base") as sandbox:
        await sandbox.files.upload(tree, "tree")
        with pytest.raises(Conflict, match="links are not followed"):
            await sandbox.files.download_dir("tree", tmp_path / "back")
        assert [*elsewhere.iterdir()] == []


def _content(root: Path) -> dict[str, object]:
    """What is below `root`: modes and contents by name."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        kind = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (kind, 0 if path.is_symlink() else path.stat().st_mode & 0o100)
    return found
