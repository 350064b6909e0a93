"""Files over HTTP: every kind of name, every kind of file, both orders of a form."""

import asyncio
import base64
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cove.agent.files import listing
from cove.models.files import FileEntry, FileList

if TYPE_CHECKING:
    from conftest import RunningAgent

pytestmark = pytest.mark.anyio

NAMES = [
    "plain.txt",
    "with space.txt",
    "a&b=c.txt",
    "hash#tag.txt",
    "plus+sign.txt",
    "100%.txt",
    "%41.txt",
    "semi;colon,comma.txt",
    "question?.txt",
    "quote'\".txt",
    "back\\slash.txt",
    "😀 é ü.txt",
    "new\nline.txt",
    "-rf",
    "...",
]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def refusal(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code
    return answer.json()


@pytest.mark.parametrize("name", NAMES)
async def test_round_trip_of_names(agent: "RunningAgent", name: str) -> None:
    path = str(agent.workspace / name)
    written = await agent.client.post("/files/write", json={"path": path, "content": f"I am {name}"})
    assert written.status_code == 200
    assert written.json()["path"] == path
    assert written.json()["size"] == len(f"I am {name}".encode())
    read = await agent.client.get("/files/read", params={"path": path})
    assert read.json() == {
        "content": f"I am {name}",
        "path": path,
        "size": len(f"I am {name}".encode()),
        "encoding": "utf-8",
    }
    fetched = await agent.client.get("/files/download", params={"path": path})
    assert fetched.content == f"I am {name}".encode()
    listed = (await agent.client.get("/files/list", params={"path": str(agent.workspace)})).json()
    assert [entry["name"] for entry in listed["files"]] == [name]
    assert (await agent.client.get("/files/exists", params={"path": path})).json() == {"exists": True, "path": path}
    assert (await agent.client.delete("/files/remove", params={"path": path})).status_code == 200
    assert (await agent.client.get("/files/exists", params={"path": path})).json()["exists"] is False


@pytest.mark.parametrize("name", ["a&b.txt", "a&b=c.txt", "plus+sign.txt", "x&limit.txt", "%41.txt", "+%2b.txt"])
async def test_clients_that_do_not_encode_paths(agent: "RunningAgent", name: str) -> None:
    (agent.workspace / name).write_text("found")
    answer = await agent.raw(f"GET /files/read?path={agent.workspace}/{name} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    assert b'"content":"found"' in answer


async def test_a_plus_is_a_space_where_both_exist(agent: "RunningAgent") -> None:
    (agent.workspace / "a b").write_text("space")
    (agent.workspace / "a+b").write_text("plus")
    answer = await agent.raw(f"GET /files/read?path={agent.workspace}/a+b HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    assert b'"content":"space"' in answer


async def test_relative_paths_start_at_the_workspace(agent: "RunningAgent") -> None:
    await agent.client.post("/files/write", json={"path": "sub/dir/a.txt", "content": "x"})
    assert (agent.workspace / "sub/dir/a.txt").read_text() == "x"
    read = await agent.client.get("/files/read", params={"path": "sub/../sub/dir/a.txt"})
    assert read.json()["content"] == "x"


@pytest.mark.parametrize("path", ["read", "download", "exists"])
async def test_missing_path(agent: "RunningAgent", path: str) -> None:
    refusal(await agent.client.get(f"/files/{path}"), 400, "MISSING_PARAMETER")


@pytest.mark.parametrize(
    "query", ["path=", "path=%00", "path=/a%00b", "path=%ff%00", "path=/" + "a" * 5000, "path=/" + "%ff" * 5000]
)
@pytest.mark.parametrize("path", ["read", "download", "list", "exists"])
async def test_impossible_paths(agent: "RunningAgent", path: str, query: str) -> None:
    refusal(await agent.client.get(f"/files/{path}?{query}"), 400, "INVALID_PATH")


@pytest.mark.parametrize("path", ["", "a\0b", "a" * 5000, "a/" * 2000 + "b" * 200, "dir/"])
async def test_impossible_paths_in_bodies(agent: "RunningAgent", path: str) -> None:
    refusal(await agent.client.post("/files/write", json={"path": path, "content": ""}), 400, "INVALID_PATH")
    assert list(agent.workspace.rglob("*.part")) == []


async def test_path_twice(agent: "RunningAgent") -> None:
    refusal(await agent.client.get("/files/read?path=/a&path=/b"), 400, "INVALID_REQUEST")


@pytest.mark.parametrize("path", ["read", "download"])
async def test_missing_file(agent: "RunningAgent", path: str) -> None:
    body = refusal(await agent.client.get(f"/files/{path}?path=/w/sandbox.txt"), 404, "FILE_NOT_FOUND")
    assert body["path"] == body["details"]["path"] == "/w/sandbox.txt"
    assert "not found" not in body["message"]


async def test_missing_directory(agent: "RunningAgent") -> None:
    refusal(await agent.client.get("/files/list?path=/nowhere"), 404, "DIRECTORY_NOT_FOUND")
    refusal(await agent.client.delete("/files/remove?path=/nowhere"), 404, "FILE_NOT_FOUND")


async def test_directory_where_a_file_is_needed(agent: "RunningAgent") -> None:
    path = str(agent.workspace)
    refusal(await agent.client.get("/files/read", params={"path": path}), 400, "INVALID_PATH")
    refusal(await agent.client.get("/files/download", params={"path": path}), 400, "INVALID_PATH")
    refusal(await agent.client.post("/files/write", json={"path": path, "content": ""}), 400, "INVALID_PATH")


async def test_file_where_a_directory_is_needed(agent: "RunningAgent") -> None:
    (agent.workspace / "file").write_text("")
    refusal(await agent.client.get("/files/list?path=file"), 400, "INVALID_PATH")
    refusal(await agent.client.get("/files/read?path=file/inner"), 400, "INVALID_PATH")
    refusal(await agent.client.post("/files/write", json={"path": "file/inner", "content": ""}), 400, "INVALID_PATH")
    refusal(await agent.client.post("/files/mkdir", json={"path": "file/inner"}), 400, "INVALID_PATH")
    refusal(await agent.client.post("/files/mkdir", json={"path": "file"}), 409, "FILE_ALREADY_EXISTS")


async def test_special_files_are_refused_and_never_block(agent: "RunningAgent") -> None:
    os.mkfifo(agent.workspace / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent.workspace / "sock"))
    os.symlink("/dev/zero", agent.workspace / "link")
    for name in ("fifo", "sock", "link", "/dev/zero", "/dev/tty", "/dev/null"):
        for path in ("read", "download"):
            refusal(await agent.client.get(f"/files/{path}", params={"path": name}), 400, "INVALID_PATH")
        if name != "link":
            answer = await agent.client.post("/files/write", json={"path": name, "content": "x"})
            refusal(answer, 400, "INVALID_PATH")
    assert stat.S_ISFIFO(os.stat(agent.workspace / "fifo").st_mode)


async def test_symlink_loop(agent: "RunningAgent") -> None:
    os.symlink("loop", agent.workspace / "loop")
    refusal(await agent.client.get("/files/read?path=loop"), 400, "INVALID_PATH")
    assert (await agent.client.get("/files/exists?path=loop")).json()["exists"] is False
    assert (await agent.client.delete("/files/remove?path=loop")).status_code == 200


async def test_files_of_proc_say_that_they_are_empty(agent: "RunningAgent") -> None:
    read = (await agent.client.get("/files/read?path=/proc/self/status")).json()
    assert read["content"].startswith("Name:")
    assert read["size"] == len(read["content"])
    fetched = await agent.client.get("/files/download?path=/proc/self/status")
    assert fetched.content.startswith(b"Name:")


async def test_bytes_that_are_not_text(agent: "RunningAgent") -> None:
    (agent.workspace / "bin").write_bytes(bytes(range(256)))
    read = (await agent.client.get("/files/read?path=bin")).json()
    assert read["encoding"] == "base64"
    assert base64.b64decode(read["content"]) == bytes(range(256))
    assert read["size"] == 256


async def test_part_of_a_file(agent: "RunningAgent") -> None:
    (agent.workspace / "a").write_text("0123456789")
    assert (await agent.client.get("/files/read?path=a&offset=2&limit=3")).json()["content"] == "234"
    assert (await agent.client.get("/files/read?path=a&offset=8")).json()["content"] == "89"
    assert (await agent.client.get("/files/read?path=a&offset=99")).json()["content"] == ""
    assert (await agent.client.get("/files/read?path=a&limit=0")).json()["size"] == 10


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "", "9" * 30])
async def test_bad_offsets(agent: "RunningAgent", value: str) -> None:
    refusal(await agent.client.get(f"/files/read?path=a&offset={value}"), 400, "INVALID_REQUEST")


async def test_file_too_long_to_read(agent: "RunningAgent") -> None:
    with (agent.workspace / "big").open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    body = refusal(await agent.client.get("/files/read?path=big"), 413, "REQUEST_TOO_LARGE")
    assert "/files/download" in body["message"]
    part = await agent.client.get("/files/read?path=big&offset=67108860&limit=100")
    assert part.json()["content"] == "\0" * 5


async def test_write_base64(agent: "RunningAgent") -> None:
    content = base64.encodebytes(b"\x00\xff" * 100).decode()
    await agent.client.post("/files/write", json={"path": "b", "content": content, "encoding": "base64"})
    assert (agent.workspace / "b").read_bytes() == b"\x00\xff" * 100


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"content": "a*b", "encoding": "base64"}, "content"),
        ({"encoding": "latin-1"}, "encoding"),
        ({"mode": "rw"}, "mode"),
    ],
)
async def test_bad_writes(agent: "RunningAgent", change: dict[str, str], field: str) -> None:
    answer = await agent.client.post("/files/write", json={"path": "b", "content": "", **change})
    assert refusal(answer, 400, "INVALID_REQUEST")["details"]["field"] == field
    assert not (agent.workspace / "b").exists()


async def test_modes(agent: "RunningAgent") -> None:
    path = agent.workspace / "run.sh"
    await agent.client.post("/files/write", json={"path": "run.sh", "content": "", "mode": "0755"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    await agent.client.post("/files/write", json={"path": "run.sh", "content": "new", "mode": "0644"})
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o755)
    await agent.client.post("/files/write", json={"path": "run.sh", "content": "", "mode": "0600"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await agent.client.post("/files/write", json={"path": "plain", "content": ""})
    assert stat.S_IMODE((agent.workspace / "plain").stat().st_mode) == 0o644


async def test_overwrite_refused(agent: "RunningAgent") -> None:
    (agent.workspace / "a").write_text("old")
    answer = await agent.client.post("/files/write", json={"path": "a", "content": "new", "overwrite": False})
    refusal(answer, 409, "FILE_ALREADY_EXISTS")
    assert (agent.workspace / "a").read_text() == "old"
    answer = await agent.client.post("/files/write", json={"path": "b", "content": "new", "overwrite": False})
    assert answer.status_code == 200
    assert sorted(path.name for path in agent.workspace.iterdir()) == ["a", "b"]


async def test_write_through_a_link(agent: "RunningAgent") -> None:
    (agent.workspace / "target").write_text("old")
    os.symlink("target", agent.workspace / "link")
    await agent.client.post("/files/write", json={"path": "link", "content": "new"})
    assert (agent.workspace / "target").read_text() == "new"
    assert (agent.workspace / "link").is_symlink()


async def test_listing(agent: "RunningAgent") -> None:
    (agent.workspace / "dir").mkdir()
    (agent.workspace / "file").write_text("12345")
    os.symlink("missing", agent.workspace / "link")
    with open(os.fsencode(agent.workspace) + b"/\xff\xfe", "w"):
        pass
    listed = (await agent.client.get("/files/list")).json()
    assert listed["path"] == str(agent.workspace)
    assert listed["count"] == 4
    entries = {entry["name"]: entry for entry in listed["files"]}
    assert set(entries) == {"dir", "file", "link", "\ufffd\ufffd"}
    assert entries["dir"]["is_directory"] is entries["dir"]["is_dir"] is True
    assert entries["file"]["size"] == 5
    assert entries["file"]["permissions"] == entries["file"]["mode"] == "-rw-r--r--"
    assert entries["file"]["modified"] == entries["file"]["modified_time"]
    assert entries["file"]["modified"].endswith("Z")
    assert entries["link"]["is_symlink"] is True


async def test_times_that_no_calendar_has(agent: "RunningAgent") -> None:
    (agent.workspace / "far").write_text("")
    os.utime(agent.workspace / "far", (2**34 - 1, 2**34 - 1))
    assert (await agent.client.get("/files/list")).status_code == 200


async def test_remove_tree(agent: "RunningAgent") -> None:
    outside = agent.workspace.parent / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    deep = agent.workspace / "tree" / Path(*["d"] * 150)
    deep.mkdir(parents=True)
    for number in range(450):
        (deep / str(number)).write_text("")
    os.symlink(outside, deep / "link")
    assert (await agent.client.delete("/files/remove?path=tree/")).status_code == 200
    assert not (agent.workspace / "tree").exists()
    assert (outside / "kept").exists()


@pytest.mark.parametrize("path", ["/", "//", "/tmp/..", "/./"])
async def test_root_is_not_removed(agent: "RunningAgent", path: str) -> None:
    refusal(await agent.client.delete("/files/remove", params={"path": path}), 400, "INVALID_PATH")


async def test_mkdir(agent: "RunningAgent") -> None:
    for _ in range(2):
        assert (await agent.client.post("/files/mkdir", json={"path": "a/b/c"})).status_code == 200
    assert (agent.workspace / "a/b/c").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its effective user id, which needs root")
async def test_permission_denied(agent: "RunningAgent") -> None:
    # The connection is kept: its socket lies in a directory that only root can enter.
    await agent.client.get("/health")
    os.seteuid(65534)
    try:
        answer = await agent.client.get("/files/read?path=/proc/1/environ")
    finally:
        os.seteuid(0)
    body = refusal(answer, 403, "FORBIDDEN")
    assert body["path"] == "/proc/1/environ"


def form(boundary: str, path: str | None, content: bytes, *, path_first: bool) -> bytes:
    parts: list[bytes] = []
    if path is not None:
        parts.append(f'Content-Disposition: form-data; name="path"\r\n\r\n{path}'.encode())
    parts.append(
        b'Content-Disposition: form-data; name="file"; filename="up.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content
    )
    if not path_first:
        parts.reverse()
    mark = b"--" + boundary.encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


@pytest.mark.parametrize("path_first", [True, False])
@pytest.mark.parametrize("name", ["up.bin", "sub dir/😀+&.bin"])
async def test_upload_in_both_orders(agent: "RunningAgent", name: str, path_first: bool) -> None:
    content = os.urandom(300_000) + b"\r\n--B\r\n--Bx"
    target = agent.workspace / name
    body = form("BoundaryB", str(target), content, path_first=path_first)
    headers = {"content-type": "multipart/form-data; boundary=BoundaryB"}
    answer = await agent.client.post("/files/upload", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == len(content)
    assert answer.json()["path"] == str(target)
    assert target.read_bytes() == content
    assert list(agent.workspace.rglob(".cove-*")) == []


async def test_upload_without_a_path_takes_the_name(agent: "RunningAgent") -> None:
    answer = await agent.client.post("/files/upload", files={"file": ("../../n.txt", b"abc")})
    assert answer.json()["path"] == str(agent.workspace / "n.txt")


async def test_upload_across_file_systems(agent: "RunningAgent") -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == agent.workspace.stat().st_dev:
        pytest.skip("/dev/shm is not a file system of its own here")
    target = shared / f"cove-upload-{os.getpid()}"
    try:
        body = form("B", str(target), b"x" * 3_000_000, path_first=False)
        headers = {"content-type": "multipart/form-data; boundary=B"}
        assert (await agent.client.post("/files/upload", content=body, headers=headers)).status_code == 200
        assert target.stat().st_size == 3_000_000
    finally:
        target.unlink(missing_ok=True)
    assert list(agent.workspace.iterdir()) == []


PATH_ONLY = b'--B\r\nContent-Disposition: form-data; name="path"\r\n\r\na\r\n--B--\r\n'


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b"{}", "INVALID_REQUEST"),
        ("multipart/form-data", b"", "INVALID_REQUEST"),
        ("multipart/form-data; boundary=" + "b" * 100, b"", "INVALID_REQUEST"),
        ("multipart/form-data; boundary=B", b"", "INVALID_REQUEST"),
        ("multipart/form-data; boundary=B", b"garbage", "INVALID_REQUEST"),
        ("multipart/form-data; boundary=B", form("B", "a", b"x", path_first=True)[:-8], "INVALID_REQUEST"),
        ("multipart/form-data; boundary=B", PATH_ONLY, "MISSING_PARAMETER"),
        ("multipart/form-data; boundary=B", form("B", "a\0b", b"x", path_first=True), "INVALID_PATH"),
        ("multipart/form-data; boundary=B", form("B", "", b"x", path_first=False), "INVALID_PATH"),
        ("multipart/form-data; boundary=B", form("B", "p" * 5000, b"x", path_first=False), "INVALID_PATH"),
    ],
)
async def test_bad_uploads(agent: "RunningAgent", content_type: str, body: bytes, code: str) -> None:
    answer = await agent.client.post("/files/upload", content=body, headers={"content-type": content_type})
    refusal(answer, 400, code)
    assert list(agent.workspace.iterdir()) == []


async def test_upload_of_100_mb_takes_little_memory(agent: "RunningAgent") -> None:
    chunk = os.urandom(1024 * 1024)
    before = resident_bytes()
    peak = before

    async def body() -> AsyncIterator[bytes]:
        nonlocal peak
        yield form("B", "big.bin", b"", path_first=True).partition(b"\r\n--B--")[0]
        for _ in range(100):
            peak = max(peak, resident_bytes())
            yield chunk
        yield b"\r\n--B--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=B"}
    answer = await agent.client.post("/files/upload", content=body(), headers=headers)
    assert answer.json()["size"] == 100 * 1024 * 1024
    async with agent.client.stream("GET", "/files/download?path=big.bin") as fetched:
        assert fetched.headers["content-length"] == str(100 * 1024 * 1024)
        size = 0
        async for piece in fetched.aiter_bytes():
            size += len(piece)
            peak = max(peak, resident_bytes())
    assert size == 100 * 1024 * 1024
    assert peak - before < 24 * 1024 * 1024


async def test_upload_that_breaks_off_leaves_nothing(agent: "RunningAgent") -> None:
    (agent.workspace / "a").write_text("old")
    _, writer = await asyncio.open_unix_connection(agent.address)
    part = form("B", "a", b"x" * 500_000, path_first=True)[:400_000]
    writer.write(
        b"POST /files/upload HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary=B\r\n"
        b"content-length: 500200\r\n\r\n" + part
    )
    await writer.drain()
    await until(lambda: any(path.name.startswith(".cove-") for path in agent.workspace.iterdir()))
    writer.close()
    await until(lambda: [path.name for path in agent.workspace.iterdir()] == ["a"])
    assert (agent.workspace / "a").read_text() == "old"


async def test_head_of_a_download(agent: "RunningAgent") -> None:
    (agent.workspace / "a").write_bytes(b"12345")
    answer = await agent.client.head("/files/download?path=a")
    assert answer.headers["content-length"] == "5"
    assert answer.content == b""


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_pages_of_a_listing(agent: "RunningAgent") -> None:
    for number in range(12):
        (agent.workspace / f"{number:02}").write_text("")
    whole = (await agent.client.get("/files/list?limit=12")).json()
    assert (whole["count"], whole["truncated"], whole["next_offset"]) == (12, False, None)
    names: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = FileList.model_validate((await agent.client.get(f"/files/list?limit=5&offset={offset}")).json())
        assert page.truncated is (page.next_offset is not None)
        names += [entry.name for entry in page.files]
        offset = page.next_offset
    assert names == [entry["name"] for entry in whole["files"]] == sorted(names)
    assert (await agent.client.get("/files/list?offset=99")).json()["files"] == []
    refusal(await agent.client.get("/files/list?limit=-1"), 400, "INVALID_REQUEST")


async def test_large_directories_are_listed_whole_in_pieces(
    agent: "RunningAgent", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SORTED_ENTRIES", 1500)
    names = {f"file-{number}-{'x' * 200}" for number in range(2000)}
    for name in names:
        (agent.workspace / name).touch()
    async with agent.client.stream("GET", "/files/list") as answer:
        assert "content-length" not in answer.headers
        await answer.aread()
    listed = FileList.model_validate(answer.json())
    assert {entry.name for entry in listed.files} == names
    assert (listed.count, listed.truncated) == (2000, False)
    # HEAD sends no body; the connection can be used again.
    assert (await agent.client.head("/files/list")).content == b""
    assert (await agent.client.get("/health")).status_code == 200


async def test_a_listing_that_nobody_reads_any_more_closes_its_directory(agent: "RunningAgent") -> None:
    for number in range(8000):
        (agent.workspace / f"{number}-{'x' * 200}").touch()
    _, writer = await asyncio.open_unix_connection(agent.address)
    writer.write(b"GET /files/list HTTP/1.1\r\nhost: a\r\n\r\n")
    await until(lambda: open_files(agent.workspace) > 0)
    writer.close()
    await until(lambda: open_files(agent.workspace) == 0)


async def test_entries_have_the_fields_of_the_contract(agent: "RunningAgent") -> None:
    (agent.workspace / 'a "quoted" 😀').touch()
    (entry,) = (await agent.client.get("/files/list")).json()["files"]
    assert set(entry) == set(FileEntry.model_fields) - {"encoded_path"}
    assert FileEntry.model_validate(entry, strict=True).name == 'a "quoted" 😀'


async def test_names_that_are_not_utf8_can_be_reached(agent: "RunningAgent") -> None:
    (agent.workspace / "sub").mkdir()
    with open(os.fsencode(agent.workspace) + b"/sub/a\xff b&", "w") as file:
        file.write("here")
    (entry,) = (await agent.client.get("/files/list?path=sub")).json()["files"]
    assert (entry["name"], entry["path"]) == ("a\ufffd b&", f"{agent.workspace}/sub/a\ufffd b&")
    query = f"path={entry['encoded_path']}"
    assert (await agent.client.get(f"/files/read?{query}")).json()["content"] == "here"
    assert (await agent.client.get(f"/files/download?{query}")).content == b"here"
    assert (await agent.client.get(f"/files/exists?{query}")).json() == {"exists": True, "path": entry["path"]}
    refusal(await agent.client.get(f"/files/list?{query}"), 400, "INVALID_PATH")
    assert (await agent.client.delete(f"/files/remove?{query}")).json()["path"] == entry["path"]
    body = refusal(await agent.client.get(f"/files/read?{query}"), 404, "FILE_NOT_FOUND")
    assert body["path"] == entry["path"]


@pytest.mark.parametrize(
    "content",
    [
        b"test",
        b"aGVsbG8=",
        b"aGVsbG9=",
        b"====",
        b"plain text",
        b"abc",
        b"",
        b"dGVzdA==" * 100,
        b"Q" * 1_000_000,
        b"Q" * 262_144 + b"YQ==",
        b"Q" * 262_143 + b"=YQ=",
    ],
)
@pytest.mark.parametrize("client", ["python-httpx/0.28.1", "curl/8", "axios/1.21.1"])
async def test_clients_that_decode_downloads_get_what_is_stored(
    agent: "RunningAgent", client: str, content: bytes
) -> None:
    (agent.workspace / "a").write_bytes(content)
    received = (await agent.client.get("/files/download?path=a", headers={"user-agent": client})).content
    if client.startswith("python-httpx/"):
        received = as_hopx_clients_do(received)
    assert received == content


def as_hopx_clients_do(content: bytes) -> bytes:
    try:
        decoded = base64.b64decode(content, validate=True)
    except ValueError:
        return content
    return decoded if base64.b64encode(decoded) == content else content


async def test_a_broken_download_closes_its_file(agent: "RunningAgent") -> None:
    with (agent.workspace / "big").open("wb") as file:
        file.truncate(1 << 40)
    before = open_files(agent.workspace / "big")
    reader, writer = await asyncio.open_unix_connection(agent.address)
    writer.write(b"GET /files/download?path=big HTTP/1.1\r\nhost: a\r\n\r\n")
    assert await asyncio.wait_for(reader.readexactly(100_000), 10)
    assert open_files(agent.workspace / "big") == before + 1
    writer.close()
    await until(lambda: open_files(agent.workspace / "big") == before)


def open_files(path: Path) -> int:
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += os.readlink(descriptor) == str(path)
    return found
