"""Directories as one stream: what goes out comes in the same, and nothing that comes in gets out of its directory."""

import asyncio
import errno
import io
import os
import socket
import stat
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cove.agent.files import packing, unpacking

if TYPE_CHECKING:
    from conftest import RunningAgent

pytestmark = pytest.mark.anyio

LONG = "/".join(["n" * 200] * 4)


def refusal(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code
    return answer.json()


def snapshot(top: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Path -> permissions and content (text of a link, None of a directory) of everything below `top`."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in top.rglob("*"):
        mode = path.lstat().st_mode
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[os.fsencode(path.relative_to(top)).decode("utf-8", "replace")] = (stat.S_IMODE(mode), content)
    return found


def archive(*members: tuple[str, dict[str, Any], bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive of members: name, attributes of the `TarInfo`, content."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=format) as tar:
        for name, attributes, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def opened(data: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(data))


async def extract(agent: "RunningAgent", data: bytes, path: str = "in") -> Any:
    return await agent.client.put("/files/archive", params={"path": path}, content=data)


def make_tree(top: Path) -> None:
    (top / "empty").mkdir(parents=True)
    (top / "empty").chmod(0o750)
    (top / LONG).mkdir(parents=True)
    (top / LONG / "deep.txt").write_text("deep")
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)
    (top / "zero").touch()
    (top / "large").write_bytes(os.urandom(1_000_003))
    (top / "block").write_bytes(b"b" * 1024)
    (top / "öäü 😀 + & %41\n").write_text("names")
    with open(os.fsencode(top) + b"/not-utf8-\xff", "w") as file:
        file.write("bytes")
    (top / "link").symlink_to("run.sh")
    (top / "dangling").symlink_to("nowhere")
    (top / "up").mkdir()
    (top / "up/link").symlink_to("../empty")
    os.utime(top / "run.sh", (1_600_000_000, 1_600_000_000))


async def test_out_and_in_again(agent: "RunningAgent") -> None:
    source = agent.workspace / "out"
    make_tree(source)
    answer = await agent.client.get("/files/archive?path=out")
    assert answer.headers["content-type"] == "application/x-tar"
    with opened(answer.content) as tar:
        assert len(tar.getnames()) == int(answer.headers["x-archive-entries"])
    size = sum(len(content) for _, content in snapshot(source).values() if isinstance(content, bytes))
    assert answer.headers["x-archive-bytes"] == str(size)
    extracted = (await extract(agent, answer.content, "new/in")).json()
    target = agent.workspace / "new/in"
    assert snapshot(target) == snapshot(source)
    assert extracted == {
        "success": True,
        "path": str(target),
        "entries": len(snapshot(source)),
        "bytes": size,
    }
    assert (target / "run.sh").stat().st_mtime == 1_600_000_000
    # A second time, over what is there.
    assert (await extract(agent, answer.content, "new/in")).status_code == 200
    assert snapshot(target) == snapshot(source)


async def test_members_are_relative_and_carry_no_names_of_users(agent: "RunningAgent") -> None:
    make_tree(agent.workspace / "out")
    with opened((await agent.client.get("/files/archive?path=out/")).content) as tar:
        for member in tar:
            assert not member.name.startswith(("/", ".."))
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")


async def test_special_files_are_left_out(agent: "RunningAgent") -> None:
    os.mkfifo(agent.workspace / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent.workspace / "sock"))
    (agent.workspace / "set").touch()
    (agent.workspace / "set").chmod(0o6755)
    os.link(agent.workspace / "set", agent.workspace / "same")
    with opened((await agent.client.get("/files/archive?path=.")).content) as tar:
        members = {member.name: member for member in tar}
    assert set(members) == {"set", "same"}
    assert all(member.isreg() and member.mode == 0o755 for member in members.values())


async def test_empty_directory(agent: "RunningAgent") -> None:
    answer = await agent.client.get("/files/archive", params={"path": str(agent.workspace)})
    assert answer.content == bytes(1024)
    assert (await extract(agent, answer.content)).json()["entries"] == 0
    assert (agent.workspace / "in").is_dir()


async def test_what_cannot_be_an_archive(agent: "RunningAgent") -> None:
    (agent.workspace / "file").write_text("")
    refusal(await agent.client.get("/files/archive?path=nowhere"), 404, "DIRECTORY_NOT_FOUND")
    refusal(await agent.client.get("/files/archive?path=file"), 400, "INVALID_PATH")
    refusal(await agent.client.get("/files/archive"), 400, "MISSING_PARAMETER")
    refusal(await agent.client.get("/files/archive?path=.&skip_unreadable=maybe"), 400, "INVALID_REQUEST")
    refusal(await extract(agent, bytes(1024), "file"), 409, "FILE_ALREADY_EXISTS")
    refusal(await extract(agent, bytes(1024), "file/in"), 400, "INVALID_PATH")


async def test_what_cannot_be_read(agent: "RunningAgent", monkeypatch: pytest.MonkeyPatch) -> None:
    # access(2) asks for the real user, who is root here.
    def access(name: str, mode: int, *, dir_fd: int) -> bool:
        return name != "secret"

    monkeypatch.setattr(packing.os, "access", access)
    (agent.workspace / "secret").write_text("")
    (agent.workspace / "open").write_text("")
    body = refusal(await agent.client.get("/files/archive?path=."), 403, "FORBIDDEN")
    assert body["path"] == f"{agent.workspace}/./secret"
    assert "skip_unreadable" in body["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its effective user id, which needs root")
async def test_what_cannot_be_read_is_left_out_on_demand(agent: "RunningAgent") -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "secret").touch(0o600)
        (top / "closed").mkdir(0o700)
        (top / "open").touch(0o644)
        await agent.client.get("/health")
        os.seteuid(65534)
        try:
            answer = await agent.client.get(f"/files/archive?path={name}&skip_unreadable=true")
            refused = await agent.client.get(f"/files/archive?path={name}/closed")
        finally:
            os.seteuid(0)
    refusal(refused, 403, "FORBIDDEN")
    with opened(answer.content) as tar:
        assert set(tar.getnames()) == {"open", "closed"}


async def test_limits_of_what_goes_out(agent: "RunningAgent", monkeypatch: pytest.MonkeyPatch) -> None:
    with (agent.workspace / "sparse").open("wb") as file:
        file.truncate(1 << 42)
    refusal(await agent.client.get("/files/archive?path=."), 413, "REQUEST_TOO_LARGE")
    (agent.workspace / "sparse").unlink()
    monkeypatch.setattr(packing, "MAX_ENTRIES", 2)
    for name in "abc":
        (agent.workspace / name).touch()
    refusal(await agent.client.get("/files/archive?path=."), 413, "REQUEST_TOO_LARGE")


@pytest.mark.parametrize("size", [0, 100, 3_000_000])
async def test_files_that_change_keep_the_size_that_they_had(
    agent: "RunningAgent", monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = agent.workspace / "changing"
    path.write_bytes(b"x" * 2_000_000)
    (agent.workspace / "z").write_text("z")
    fstat = os.fstat

    def change_after(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size == 2_000_000:
            os.truncate(path, size)
        return status

    monkeypatch.setattr(packing.os, "fstat", change_after)
    answer = await agent.client.get("/files/archive?path=.")
    monkeypatch.undo()
    with opened(answer.content) as tar:
        content = tar.extractfile("changing")
        assert content is not None
        assert content.read() == b"x" * min(size, 2_000_000) + bytes(2_000_000 - min(size, 2_000_000))
        assert "z" in tar.getnames()


async def test_files_that_vanish_are_left_out(agent: "RunningAgent", monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "dir/c"):
        (agent.workspace / name).parent.mkdir(exist_ok=True)
        (agent.workspace / name).write_text(name)
    header = packing._header  # pyright: ignore[reportPrivateUsage]

    def remove_then(path: str, *rest: Any, **more: Any) -> bytes:
        for found in agent.workspace.rglob("*"):
            if found.is_file() and found.name != path.rpartition("/")[2]:
                found.unlink()
        return header(path, *rest, **more)

    monkeypatch.setattr(packing, "_header", remove_then)
    with opened((await agent.client.get("/files/archive?path=.")).content) as tar:
        assert len([member for member in tar if member.isreg()]) == 1


async def test_other_file_systems_are_left_out(agent: "RunningAgent") -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == Path("/dev").stat().st_dev:
        pytest.skip("/dev/shm is not a file system of its own here")
    mark = shared / f"cove-archive-{os.getpid()}"
    mark.touch()
    try:
        with opened((await agent.client.get("/files/archive?path=/dev&skip_unreadable=true")).content) as tar:
            names = tar.getnames()
    finally:
        mark.unlink()
    assert "shm" in names
    assert f"shm/{mark.name}" not in names


ESCAPES: list[tuple[str, dict[str, Any]]] = [
    ("/etc/absolute", {}),
    ("../up", {}),
    ("a/../../up", {}),
    ("a/..", {}),
    ("abs", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
    ("out", {"type": tarfile.SYMTYPE, "linkname": ".."}),
    ("a/out", {"type": tarfile.SYMTYPE, "linkname": "../../x"}),
    ("hop", {"type": tarfile.SYMTYPE, "linkname": "a/../.."}),
    ("empty-link", {"type": tarfile.SYMTYPE, "linkname": ""}),
    ("hard", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
    ("hard", {"type": tarfile.LNKTYPE, "linkname": "../secret"}),
    ("hard", {"type": tarfile.LNKTYPE, "linkname": "."}),
    ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
    ("disk", {"type": tarfile.BLKTYPE, "devmajor": 7, "devminor": 0}),
    ("fifo", {"type": tarfile.FIFOTYPE}),
    (".", {}),
    ("odd", {"type": b"V"}),
    ("n" * 5000, {}),
]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(("name", "attributes"), ESCAPES)
async def test_what_would_get_out_or_is_special_is_refused(
    agent: "RunningAgent", name: str, attributes: dict[str, Any], format: int
) -> None:
    (agent.workspace / "secret").write_text("secret")
    before = snapshot(agent.workspace)
    data = archive(("first", {}, b"1"), (name, attributes, b""), ("last", {}, b"2"), format=format)
    body = refusal(await extract(agent, data), 400, "INVALID_REQUEST")
    assert body["details"]["extracted_entries"] == 1
    assert "1 entries were extracted" in body["message"]
    assert snapshot(agent.workspace / "in") == {"first": (0o644, b"1")}
    assert {name: found for name, found in snapshot(agent.workspace).items() if not name.startswith("in")} == before


@pytest.mark.parametrize("member", ["trap/x", "trap/deep/x", "trap"])
async def test_links_are_never_followed(agent: "RunningAgent", member: str) -> None:
    outside = agent.workspace / "outside"
    (outside / "deep").mkdir(parents=True)
    (agent.workspace / "in").mkdir()
    (agent.workspace / "in/trap").symlink_to(outside)
    answer = await extract(agent, archive((member, {}, b"evil")))
    assert snapshot(outside) == {"deep": (0o755, None)}
    if member == "trap":
        # The link itself is replaced.
        assert answer.status_code == 200
        assert (agent.workspace / "in/trap").read_bytes() == b"evil"
        assert not (agent.workspace / "in/trap").is_symlink()
    else:
        refusal(answer, 400, "INVALID_PATH")


async def test_links_of_the_archive_are_not_followed_either(agent: "RunningAgent") -> None:
    (agent.workspace / "in/real").mkdir(parents=True)
    data = archive(("l", {"type": tarfile.SYMTYPE, "linkname": "real"}, b""), ("l/x", {}, b"1"))
    refusal(await extract(agent, data), 400, "INVALID_PATH")
    assert list((agent.workspace / "in/real").iterdir()) == []


async def test_links_that_stay_inside(agent: "RunningAgent") -> None:
    data = archive(
        ("bin/tool", {"mode": 0o755}, b"#!"),
        ("lib/x/tool", {"type": tarfile.SYMTYPE, "linkname": "../../bin/./tool"}, b""),
        ("lib/hard", {"type": tarfile.LNKTYPE, "linkname": "bin/tool"}, b""),
        ("lib/hard", {"type": tarfile.LNKTYPE, "linkname": "bin/tool"}, b""),
        ("bin/tool", {"type": tarfile.LNKTYPE, "linkname": "./bin/tool"}, b""),
    )
    assert (await extract(agent, data)).json()["entries"] == 5
    top = agent.workspace / "in"
    assert (top / "lib/x/tool").read_bytes() == b"#!"
    assert (top / "lib/hard").stat().st_ino == (top / "bin/tool").stat().st_ino
    link = archive(("to-link", {"type": tarfile.LNKTYPE, "linkname": "lib/x/tool"}, b""))
    refusal(await extract(agent, link), 400, "INVALID_REQUEST")
    gone = archive(("to-nothing", {"type": tarfile.LNKTYPE, "linkname": "nothing"}, b""))
    refusal(await extract(agent, gone), 404, "FILE_NOT_FOUND")


async def test_modes_and_times(agent: "RunningAgent") -> None:
    data = archive(
        ("dir", {"type": tarfile.DIRTYPE, "mode": 0o1555}, b""),
        ("dir/set", {"mode": 0o6711, "mtime": 1_234_567}, b"x"),
        ("old", {"mtime": -5}, b""),
        ("far", {"mtime": 8**11 - 1}, b""),
        ("part", {"mtime": 12.75}, b""),
        format=tarfile.PAX_FORMAT,
    )
    assert (await extract(agent, data)).status_code == 200
    top = agent.workspace / "in"
    assert stat.S_IMODE((top / "dir").stat().st_mode) == 0o755
    assert stat.S_IMODE((top / "dir/set").stat().st_mode) == 0o711
    assert (top / "dir/set").stat().st_mtime == 1_234_567
    assert (top / "old").stat().st_mtime == 0
    assert (top / "part").stat().st_mtime == 12.75


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("step", [1, 7, 512, 5000, 10**9])
async def test_every_format_in_pieces_of_every_size(
    agent: "RunningAgent", tmp_path: Path, format: int, step: int
) -> None:
    contents = {"a": b"", "b/ö": b"x" * 512, "c" * 90: b"y" * 1300}
    if format != tarfile.USTAR_FORMAT:
        contents["d/" * 60 + "e" * 150] = b"long"
    members: list[tuple[str, dict[str, Any], bytes]] = [(name, {}, content) for name, content in contents.items()]
    data = archive(*members, format=format)
    with unpacking.Extraction(str(tmp_path / "in")) as extraction:
        for start in range(0, len(data), step):
            extraction.write(data[start : start + step])
        extraction.finish()
    assert {name: (tmp_path / "in" / name).read_bytes() for name in contents} == contents
    assert extraction.bytes == sum(map(len, contents.values()))


def damaged(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]


GOOD = archive(("one", {}, b"1" * 600), ("two", {}, b"2" * 600))


def with_record(record: bytes) -> bytes:
    """`PAX` with another extended header."""
    return PAX[:512] + record.ljust(512, b"\0") + PAX[1024:]


PAX = archive(("ö" * 80, {}, b"1"), format=tarfile.PAX_FORMAT)


@pytest.mark.parametrize(
    ("data", "entries", "says"),
    [
        (b"", 0, "before its end mark"),
        (b"no archive at all", 0, "before its end mark"),
        (b"x" * 5000, 0, "checksum"),
        (b"\x1f\x8b" + bytes(600), 0, "gzip"),
        (GOOD[:300], 0, "before its end mark"),
        (GOOD[:900], 0, "before its end mark"),
        (GOOD[: 3 * 512], 1, "before its end mark"),
        (damaged(GOOD, 3 * 512 + 100), 1, "checksum"),
        (damaged(GOOD, 4), 0, "checksum"),
        (with_record(b"9" * 512), 0, "malformed"),
        (with_record(b"0 path=x\n"), 0, "malformed"),
        (with_record(b"11 size=-5\n"), 0, "negative size"),
        (with_record(b"11 size=0x\n"), 0, "malformed size"),
        (with_record(b"13 mtime=nan\n"), 0, "malformed mtime"),
        (with_record(b"22 GNU.sparse.major=1\n"), 0, "sparse"),
    ],
)
async def test_broken_archives(agent: "RunningAgent", data: bytes, entries: int, says: str) -> None:
    body = refusal(await extract(agent, data), 400, "INVALID_REQUEST")
    assert body["details"]["extracted_entries"] == entries
    assert says in body["message"]
    assert len(snapshot(agent.workspace / "in")) == entries


async def test_too_many_members(agent: "RunningAgent", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_ENTRIES", 3)
    data = archive(("0", {}, b""), ("1", {}, b""), ("2", {}, b""), ("3", {}, b""))
    assert refusal(await extract(agent, data), 400, "INVALID_REQUEST")["details"]["extracted_entries"] == 3


async def test_a_headers_extension_is_bounded(agent: "RunningAgent") -> None:
    data = archive(("x", {"pax_headers": {"comment": "c" * 100_000}}, b""), format=tarfile.PAX_FORMAT)
    assert "extended header" in refusal(await extract(agent, data), 400, "INVALID_REQUEST")["message"]


async def test_what_stands_in_the_way(agent: "RunningAgent") -> None:
    (agent.workspace / "in/dir/full").mkdir(parents=True)
    (agent.workspace / "in/file").touch()
    refusal(await extract(agent, archive(("dir", {}, b"x"))), 400, "INVALID_PATH")
    refusal(await extract(agent, archive(("file/x", {}, b"x"))), 400, "INVALID_PATH")
    assert (agent.workspace / "in/dir/full").is_dir()
    assert list(agent.workspace.rglob(".cove-*")) == []


async def test_a_full_disk_is_told_and_leaves_no_part(agent: "RunningAgent", monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("cove.agent.files.writing.os.write", refuse)
    answer = await extract(agent, archive(("empty", {}, b""), ("a/b", {}, b"x" * 100)))
    monkeypatch.undo()
    body = refusal(answer, 507, "DISK_FULL")
    assert body["path"] == f"{agent.workspace}/in/a/b"
    assert body["details"]["extracted_entries"] == 1
    assert set(snapshot(agent.workspace / "in")) == {"a", "empty"}


async def test_a_client_that_goes_away_leaves_no_part(agent: "RunningAgent") -> None:
    data = archive(("whole", {}, b"x"), ("part", {}, b"x" * 500_000))
    _, writer = await asyncio.open_unix_connection(agent.address)
    writer.write(b"PUT /files/archive?path=in HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(data))
    writer.write(data[:200_000])
    await writer.drain()
    await until(lambda: list(agent.workspace.glob("in/.cove-*")) != [])
    writer.close()
    await until(lambda: set(snapshot(agent.workspace / "in")) == {"whole"})


async def test_many_small_files_are_quick(agent: "RunningAgent") -> None:
    for number in range(580):
        path = agent.workspace / f"src/{number % 20}/{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"print({number})\n")
    began = time.perf_counter()
    packed = (await agent.client.get("/files/archive?path=src")).content
    assert (await extract(agent, packed)).json()["entries"] == 600
    assert time.perf_counter() - began < 5


async def test_100_mb_take_little_memory(agent: "RunningAgent") -> None:
    info = tarfile.TarInfo("big")
    info.size = 100 * 1024 * 1024
    head = info.tobuf(tarfile.GNU_FORMAT)
    chunk = os.urandom(1024 * 1024)
    before = peak = resident_bytes()

    async def body() -> AsyncIterator[bytes]:
        nonlocal peak
        yield head
        for _ in range(100):
            peak = max(peak, resident_bytes())
            yield chunk
        yield bytes(1024)

    answer = await agent.client.put("/files/archive?path=in", content=body())
    assert answer.json()["bytes"] == info.size
    async with agent.client.stream("GET", "/files/archive?path=in") as fetched:
        size = 0
        async for piece in fetched.aiter_bytes():
            size += len(piece)
            peak = max(peak, resident_bytes())
    assert size == 512 + info.size + 1024
    assert peak - before < 20 * 1024 * 1024


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
