"""`/files/watch`: changes of real directories."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.agent.conftest import AgentProcess
from tests.agent.websocket_clients import Client, RawClient, eventually, resident_bytes, websocket
from websockets.exceptions import InvalidStatus

from cove.agent.http.routes.watch import MAX_WATCHES

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def process(shared_process: AgentProcess) -> AgentProcess:
    return shared_process


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    return path


@asynccontextmanager
async def watching(process: AgentProcess, path: Path | str, **fields: Any) -> AsyncGenerator[Client]:
    async with websocket(process.address, "/files/watch?ready=true") as client:
        await client.send(action="watch", path=str(path), **fields)
        assert await client.receive() == {"type": "watching", "path": str(path)}
        yield client


async def changes_until(client: Client, tree: Path, last: str) -> list[str]:
    """`event path` with paths below `tree`, up to the deletion of a file called `last`, which is made here."""
    (tree / last).touch()
    (tree / last).unlink()
    frames = await client.until(lambda frame: frame["event"] == "deleted" and frame["path"] == f"{tree}/{last}")
    assert all(frame["type"] == "change" and frame["timestamp"].endswith("Z") for frame in frames)
    return [_words(frame).replace(f"{tree}/", "") for frame in frames if not frame["path"].endswith(f"/{last}")]


def _words(frame: dict[str, Any]) -> str:
    old = f"{frame['old_path']} -> " if "old_path" in frame else ""
    return f"{frame['event']}{'/' if frame['is_directory'] else ''} {old}{frame['path']}"


async def test_what_happens_to_files(process: AgentProcess, tree: Path) -> None:
    async with watching(process, tree) as client:
        (tree / "a").write_text("1")
        assert await changes_until(client, tree, "1") == ["created a"]
        (tree / "a").write_text("2")
        assert await changes_until(client, tree, "2") == ["modified a"]
        (tree / "a").chmod(0o600)
        assert await changes_until(client, tree, "3") == ["modified a"]
        (tree / "a").rename(tree / "b")
        assert await changes_until(client, tree, "4") == ["renamed a -> b"]
        (tree / "b").unlink()
        assert await changes_until(client, tree, "5") == ["deleted b"]


async def test_what_moves_in_and_out(process: AgentProcess, tree: Path) -> None:
    outside = tree.parent / "outside"
    async with watching(process, tree) as client:
        (tree / "a").touch()
        (tree / "a").rename(outside)
        assert await changes_until(client, tree, "1") == ["created a", "deleted a"]
        outside.rename(tree / "b")
        assert await changes_until(client, tree, "2") == ["created b"]


async def test_directories_that_are_made_later_are_watched_too(process: AgentProcess, tree: Path) -> None:
    async with watching(process, tree) as client:
        (tree / "d").mkdir()
        assert await changes_until(client, tree, "1") == ["created/ d"]
        (tree / "d/e").mkdir()
        assert await changes_until(client, tree, "2") == ["created/ d/e"]
        (tree / "d/e/f").touch()
        (tree / "d/e/f").rename(tree / "g")
        assert await changes_until(client, tree, "3") == ["created d/e/f", "renamed d/e/f -> g"]
        (tree / "d").rename(tree / "D")
        (tree / "D/e/h").touch()
        assert await changes_until(client, tree, "4") == ["renamed/ d -> D", "created D/e/h"]
        (tree / "D").rename(tree.parent / "D")
        (tree.parent / "D/e/unseen").touch()
        assert await changes_until(client, tree, "5") == ["deleted/ D"]
        (tree.parent / "D").rename(tree / "back")
        assert sorted(await changes_until(client, tree, "6")) == [
            "created back/e/h",
            "created back/e/unseen",
            "created/ back",
            "created/ back/e",
        ]
        shutil.rmtree(tree / "back")
        assert (await changes_until(client, tree, "7"))[-1] == "deleted/ back"


async def test_no_file_is_missed_in_trees_that_are_made_in_a_hurry(process: AgentProcess, tree: Path) -> None:
    """Each is told exactly once, although directories are filled before they can be watched."""
    script = 'for i in $(seq 40); do mkdir -p "$1/$i/x/y"; : > "$1/$i/x/y/f"; : > "$1/$i/g"; done'
    async with watching(process, tree) as client:
        await asyncio.to_thread(subprocess.run, ["bash", "-c", script, "bash", str(tree)], check=True, timeout=20)
        changes = await changes_until(client, tree, "last")
    made = [change.split(" ", 1)[1] for change in changes if change.startswith("created")]
    assert len(made) == len(set(made))
    assert set(made) == {f"{i}{rest}" for i in range(1, 41) for rest in ("", "/g", "/x", "/x/y", "/x/y/f")}


async def test_without_recursion_only_the_directory_itself(process: AgentProcess, tree: Path) -> None:
    (tree / "d").mkdir()
    async with watching(process, tree, recursive=False) as client:
        (tree / "d/unseen").touch()
        (tree / "seen").touch()
        assert "created seen" in await changes_until(client, tree, "1")
        (tree / "d/unseen").unlink()
        assert await changes_until(client, tree, "2") == []


async def test_writing_in_many_pieces_is_few_changes(process: AgentProcess, tree: Path) -> None:
    async with watching(process, tree) as client:
        with (tree / "a").open("wb", buffering=0) as file:
            for _ in range(5000):
                file.write(b"x")
        changes = await changes_until(client, tree, "1")
    assert changes[0] == "created a"
    assert set(changes[1:]) <= {"modified a"}
    assert len(changes) < 1000


async def test_one_file(process: AgentProcess, tree: Path) -> None:
    (tree / "a").write_text("1")
    async with watching(process, tree / "a") as client:
        (tree / "other").touch()
        (tree / "a").write_text("2")
        assert _words(await client.receive()) == f"modified {tree}/a"
        (tree / "new").write_text("3")
        (tree / "new").rename(tree / "a")
        await client.until(lambda frame: frame["event"] == "modified")
        (tree / "a").unlink()
        frames = await client.rest()
        assert _words(frames[-1]) == f"deleted {tree}/a"
        assert {frame["path"] for frame in frames} == {f"{tree}/a"}
        assert (await client.closed())[0] == 1000


async def test_links_are_not_followed(process: AgentProcess, tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (tree / "before").symlink_to(outside)
    async with watching(process, tree) as client:
        (tree / "after").symlink_to(outside)
        (outside / "unseen").touch()
        assert await changes_until(client, tree, "1") == ["created after"]


@pytest.mark.parametrize("how", ["delete", "move", "delete above"])
async def test_when_the_watched_directory_is_gone(process: AgentProcess, tree: Path, how: str) -> None:
    watched = tree / "w"
    watched.mkdir()
    async with watching(process, watched) as client:
        if how == "delete":
            watched.rmdir()
        elif how == "move":
            watched.rename(tree / "v")
        else:
            shutil.rmtree(tree)
        frames = await client.rest()
        assert (frames[-1]["event"], frames[-1]["path"], frames[-1]["is_directory"]) == ("deleted", str(watched), True)
        assert (await client.closed())[0] == 1000


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"action": "watch", "path": "/no/such"}, "FILE_NOT_FOUND"),
        ({"action": "watch", "path": "/etc/passwd/x"}, "INVALID_PATH"),
        ({"action": "watch", "path": "{tree}/link"}, "INVALID_PATH"),
        ({"action": "watch", "path": "nul\0"}, "INVALID_PATH"),
        ({"action": "watch", "path": ""}, "INVALID_PATH"),
        ({"action": "watch", "path": "x" * 5000}, "INVALID_PATH"),
        ({"action": "watch", "path": 7}, "INVALID_REQUEST"),
        ({"action": "nope"}, "INVALID_REQUEST"),
    ],
)
async def test_what_cannot_be_watched(process: AgentProcess, tree: Path, frame: dict[str, Any], code: str) -> None:
    (tree / "link").symlink_to(tree)
    path = frame.get("path")
    if isinstance(path, str):
        frame = {**frame, "path": path.replace("{tree}", str(tree))}
    async with websocket(process.address, "/files/watch") as client:
        await client.connection.send("junk")
        await client.send(**frame)
        (error,) = await client.rest()
        assert (error["type"], error["code"]) == ("error", code)
        assert (await client.closed())[0] == 1000


async def test_a_relative_path_is_below_the_workspace(process: AgentProcess) -> None:
    async with websocket(process.address, "/files/watch?ready=1") as client:
        await client.send(action="watch", path=".")
        assert (await client.receive())["path"].startswith(str(process.workspace))
        (process.workspace / "here").touch()
        assert (await client.receive())["path"].endswith("/here")


async def test_names_that_are_not_utf_8(process: AgentProcess, tree: Path) -> None:
    async with watching(process, tree) as client:
        Path(os.fsdecode(os.fsencode(tree) + b"/\xff")).touch()
        assert (await client.receive())["path"] == f"{tree}/\N{REPLACEMENT CHARACTER}"


async def test_there_is_a_limit_of_watches(process: AgentProcess, tree: Path) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MAX_WATCHES):
            await stack.enter_async_context(watching(process, tree))
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(watching(process, tree))
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["code"] == "RESOURCE_LIMIT_EXCEEDED"
    await eventually(lambda: process.client.get("/health").json()["active_streams"] == 0)
    async with watching(process, tree):
        assert not _watches_of(process, more_than=1)
    await eventually(lambda: not _watches_of(process, more_than=0))


def _watches_of(process: AgentProcess, *, more_than: int) -> bool:
    """Whether the agent has more inotify descriptors."""
    links: list[str] = []
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(entry))
    return sum("inotify" in link for link in links) > more_than


async def test_who_does_not_read_grows_nothing(process: AgentProcess, tree: Path) -> None:
    before = resident_bytes(process.pid)
    with RawClient(process.address, "/files/watch") as client:
        client.send(action="watch", path=str(tree))
        await eventually(lambda: _watches_of(process, more_than=0))
        await asyncio.to_thread(_come_and_go, tree, 10_000)
        assert process.execute("print(1)")["stdout"] == "1\n"
        assert resident_bytes(process.pid) - before < 16 * MIB
    await eventually(lambda: not _watches_of(process, more_than=0))


def _come_and_go(tree: Path, count: int) -> None:
    for number in range(count):
        path = tree / str(number)
        path.touch()
        path.unlink()


async def test_an_upload_is_a_file_that_was_created(process: AgentProcess, tree: Path) -> None:
    """Not the temporary file that becomes it."""
    async with watching(process, tree) as client:
        answer = process.client.post("/files/write", json={"path": f"{tree}/a", "content": "1"})
        assert answer.status_code == 200
        assert await changes_until(client, tree, "1") == ["created a"]


async def test_too_many_directories_are_an_overflow(process: AgentProcess, tree: Path) -> None:
    script = 'cd "$1"; for i in $(seq 85); do mkdir $i; (cd $i; mkdir $(seq 100)); done'
    await asyncio.to_thread(subprocess.run, ["bash", "-c", script, "bash", str(tree)], check=True, timeout=50)
    async with websocket(process.address, "/files/watch") as client:
        await client.send(action="watch", path=str(tree))
        frame = await client.receive()
        assert (frame["type"], frame["path"]) == ("overflow", str(tree))
        (tree / "top").touch()
        assert (await client.receive())["path"] == f"{tree}/top"
