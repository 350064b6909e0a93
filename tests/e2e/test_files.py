"""Files in a real sandbox, through the gateway: full disks, whole directories, memory."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer

MIB = 1024 * 1024
BOUNDARY = "boundary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
def agent(server: RunningServer, api: httpx2.Client) -> Iterator[httpx2.Client]:
    """The agent of a sandbox with a small disk."""
    body = {"template_name": "base", "timeout_seconds": 300, "resources": {"disk_mb": 128}}
    created: dict[str, Any] = api.post("/v1/sandboxes", json=body).raise_for_status().json()
    headers = {"authorization": f"Bearer {created['auth_token']}"}
    try:
        with httpx2.Client(
            base_url=created["public_host"], headers=headers, timeout=60, trust_env=False, verify=False
        ) as client:
            yield client
    finally:
        api.delete(f"/v1/sandboxes/{created['id']}")


def upload(path: str, size: int) -> Iterator[bytes]:
    """A form in pieces, as a client sends it that has not the whole file in memory."""
    yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="path"\r\n\r\n{path}\r\n--{BOUNDARY}\r\n'.encode()
    yield b'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    yield from content(size)
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def content(size: int) -> Iterator[bytes]:
    piece = os.urandom(MIB)
    for start in range(0, size, MIB):
        yield piece[: min(MIB, size - start)]


def names(agent: httpx2.Client, path: str = "/workspace") -> list[str]:
    return [entry["name"] for entry in agent.get("/files/list", params={"path": path}).json()["files"]]


def test_a_full_disk_is_an_error_and_nothing_is_left_of_the_upload(agent: httpx2.Client) -> None:
    agent.post("/files/write", json={"path": "/workspace/kept", "content": "old"})
    free = agent.get("/metrics/snapshot").json()["system"]["disk"]["available_mb"]
    answer = agent.post("/files/upload", content=upload("/workspace/kept", 200 * MIB), headers=FORM)
    assert (answer.status_code, answer.json()["code"]) == (507, "DISK_FULL"), answer.text
    assert answer.json()["details"]["limit_mb"] == 128
    assert names(agent) == ["kept"]
    assert agent.get("/files/read?path=/workspace/kept").json()["content"] == "old"
    assert agent.get("/metrics/snapshot").json()["system"]["disk"]["available_mb"] == pytest.approx(free, abs=2)
    archive = tarfile.TarInfo("dir/large")
    archive.size = 200 * MIB

    def body() -> Iterator[bytes]:
        yield archive.tobuf(tarfile.GNU_FORMAT)
        yield from content(archive.size)

    answer = agent.put("/files/archive?path=/workspace/in", content=body())
    assert (answer.status_code, answer.json()["code"]) == (507, "DISK_FULL"), answer.text
    assert names(agent, "/workspace/in/dir") == []
    assert agent.post("/files/upload", content=upload("/workspace/fits", 10 * MIB), headers=FORM).status_code == 200


def test_directories_in_and_out(agent: httpx2.Client) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for number in range(580):
            info = tarfile.TarInfo(f"package{number % 20}/module{number}.py")
            info.size, info.mode = 10, 0o755 if number % 2 else 0o644
            tar.addfile(info, io.BytesIO(b"print(123)"))
        link = tarfile.TarInfo("package0/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../package1/module1.py"
        tar.addfile(link)
    answer = agent.put("/files/archive?path=/workspace/tree", content=data.getvalue())
    assert answer.json() == {"success": True, "path": "/workspace/tree", "entries": 581, "bytes": 5800}
    run = agent.post(
        "/commands/run", json={"command": "readlink -f tree/package0/link; test -x tree/package1/module1.py"}
    )
    assert (run.json()["stdout"], run.json()["exit_code"]) == ("/workspace/tree/package1/module1.py\n", 0)
    fetched = agent.get("/files/archive?path=/workspace/tree")
    assert fetched.headers["x-archive-entries"] == str(581 + 20)
    with tarfile.open(fileobj=io.BytesIO(fetched.content)) as tar:
        members = {member.name: member for member in tar}
    assert len(members) == 601
    assert members["package1/module1.py"].mode == 0o755
    assert members["package0/link"].linkname == "../package1/module1.py"


def test_an_archive_of_everything_stops_at_other_file_systems(agent: httpx2.Client) -> None:
    with agent.stream("GET", "/files/archive?path=/&skip_unreadable=true") as answer:
        assert answer.status_code == 200
        with tarfile.open(fileobj=Stream(answer.iter_raw()), mode="r|") as tar:
            found = {member.name for member in tar if member.name.count("/") <= 1}
    assert {"proc", "dev", "workspace", "etc/passwd"} <= found
    assert not [name for name in found if name.startswith(("proc/", "dev/"))]


def test_100_mb_take_little_memory_of_the_server(server: RunningServer, agent: httpx2.Client) -> None:
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak is counted from here (proc(5))
    before = memory(server, "VmRSS")
    answer = agent.post("/files/upload", content=upload("/workspace/large", 100 * MIB), headers=FORM)
    assert answer.json()["size"] == 100 * MIB
    with agent.stream("GET", "/files/download?path=/workspace/large") as fetched:
        assert sum(map(len, fetched.iter_raw())) == 100 * MIB
    assert memory(server, "VmHWM") - before < 20 * 1000 * 1000


def memory(server: RunningServer, field: str) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:"))


class Stream(io.RawIOBase):
    """Pieces as a file that can only be read forwards."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._held) < size and (piece := next(self._pieces, b"")):
            self._held += piece
        data, self._held = self._held[:size], self._held[size:]
        return data
