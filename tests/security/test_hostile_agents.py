"""The agent is in the attacker's hands: what the server does with the answers of one that lies.

How the gateway treats each single lie is in tests/server/gateway; here a whole server meets a fake agent, which has
taken the place of a real one by means that no sandbox has: this test replaces the socket on the host.
"""

import array
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.security.attacks import attack
from tests.security.ground import Ground, Inside, resident_bytes, tenant
from tests.server.mcp.mcp_wire import message_of, tool_call

MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def endless_headers(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(10_000):
        client.sendall(b"X-Flood: " + b"x" * 8000 + b"\r\n")


def endless_body(client: socket.socket) -> None:
    client.sendall(OK + b'\r\n{"stdout": "')
    for _ in range(400):
        client.sendall(b"x" * MIB)


def endless_chunks(client: socket.socket) -> None:
    client.sendall(OK + b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"stdout": "x\r\n')
    for _ in range(400):
        client.sendall(b"%x\r\n%b\r\n" % (MIB, b"y" * MIB))


def tiny_chunks(client: socket.socket) -> None:
    client.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        client.sendall(b"1\r\nx\r\n" * 1000)


def bad_chunks(client: socket.socket) -> None:
    client.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx\r\n")


def wrong_length(client: socket.socket) -> None:
    client.sendall(OK + b"Content-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npoisoned!")


def short_length(client: socket.socket) -> None:
    client.sendall(OK + b"Content-Length: 1000000000\r\n\r\n{}")


def injected_headers(client: socket.socket) -> None:
    client.sendall(
        OK + b"Set-Cookie: owned=1\r\nStrict-Transport-Security: max-age=9\r\nAccess-Control-Allow-Origin: *\r\n"
        b"Location: http://evil.example/\r\nX\r\nContent-Length: 2\r\n\r\n{}"
    )


def nested_json(client: socket.socket) -> None:
    body = b'{"stdout":' + b"[" * 500_000
    client.sendall(OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def wrong_types(client: socket.socket) -> None:
    body = b'{"stdout": {"a": 1e400}, "exit_code": "x", "execution_id": null, "rich_outputs": 7, "success": "maybe"}'
    client.sendall(OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def descriptors(client: socket.socket) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        for _ in range(50):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 200).tobytes())]
            client.sendmsg([b"H"], rights)
    finally:
        os.close(null)
    client.sendall(b"TTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def switched(client: socket.socket) -> None:
    client.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: cove-socket\r\nConnection: Upgrade\r\n\r\n" + b"x" * MIB
    )


def nothing(client: socket.socket) -> None:
    client.sendall(b"")


LIES: dict[str, Callable[[socket.socket], None]] = {
    lie.__name__.replace("_", " "): lie
    for lie in (
        endless_headers,
        endless_body,
        endless_chunks,
        tiny_chunks,
        bad_chunks,
        wrong_length,
        short_length,
        injected_headers,
        nested_json,
        wrong_types,
        descriptors,
        switched,
        nothing,
    )
}

FEW = ("endless headers", "bad chunks", "wrong length", "descriptors")
GROWTH_BYTES = 112 * MIB
"""An answer that a tool reads is held once as it came, and once as a whole: 32 MiB each at most."""


class FakeAgent:
    """Answers every connection with the lie that is set."""

    def __init__(self, path: Path) -> None:
        self.lie: Callable[[socket.socket], None] = nothing
        self.asked = 0
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._threads: list[threading.Thread] = []

    @contextmanager
    def serving(self) -> Generator["FakeAgent"]:
        """In place of the socket that is there."""
        real = self._path.with_name("real.sock")
        self._path.rename(real)
        self._listener.bind(str(self._path))
        status = real.stat()
        os.chown(self._path, status.st_uid, status.st_gid)
        self._path.chmod(status.st_mode & 0o777)
        self._listener.listen(64)
        main = threading.Thread(target=self._accept)
        main.start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            main.join(10)
            self._listener.close()
            for thread in self._threads:
                thread.join(10)
            self._path.unlink()
            real.rename(self._path)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.asked += 1
            thread = threading.Thread(target=self._answer, args=(client, self.lie))
            self._threads.append(thread)
            thread.start()

    def _answer(self, client: socket.socket, lie: Callable[[socket.socket], None]) -> None:
        with client:
            client.settimeout(8)
            try:
                client.recv(65536)
                lie(client)
            except OSError:
                return  # the server has hung up on it, as it should


@pytest.fixture(scope="module")
def lying(shared_ground: Ground) -> Iterator[tuple[Inside, FakeAgent]]:
    """A sandbox of the attacker whose agent is a fake one."""
    sandbox = shared_ground.make()
    record = shared_ground.server.record(sandbox.sandbox_id)
    assert record
    try:
        with FakeAgent(Path(record["socket_path"])).serving() as agent:
            yield sandbox, agent
    finally:
        sandbox.kill()


@attack(
    "An agent that lies: headers and bodies without end, broken chunks, wrong lengths, injected headers, nested JSON,"
    " descriptors, a switch of protocols, silence - met by REST, by an MCP tool and by the control plane",
    expected="a typed error or a bounded answer; memory and descriptors of the server as before; the victim answers",
    control="the fake agent is asked, and its harmless answer comes through",
)
def test_agents_that_lie(ground: Ground, lying: tuple[Inside, FakeAgent]) -> None:
    pid = ground.server.pid
    # The server's side is the same whatever the isolation: the second time a few are enough.
    lies = FEW if ground.own_kernel else tuple(LIES)
    memory, open_before = resident_bytes(pid), _descriptors(pid)
    for lie in lies:
        _bear(ground, *lying, lie)
        assert ground.victim.command("echo fine")["stdout"] == "fine\n"
        assert resident_bytes(pid) - memory < GROWTH_BYTES, lie
        assert _descriptors(pid) - open_before < 30, lie


def _bear(ground: Ground, sandbox: Inside, agent: FakeAgent, lie: str) -> None:
    agent.lie, asked = LIES[lie], agent.asked
    received = _read_some(sandbox, limit=48 * MIB)
    assert agent.asked > asked
    assert b"poisoned!" not in received
    result = _by_mcp(ground, sandbox)
    harmless = lie in ("nothing", "wrong types", "injected headers")
    assert result.get("isError") or "error" in result or harmless, (lie, result)
    with tenant(ground.server, ground.red) as client:
        shown = client.get(f"/v1/sandboxes/{sandbox.sandbox_id}")
    assert shown.status_code == 200, shown.text


def _read_some(sandbox: Inside, *, limit: int) -> bytes:
    """What comes of a call, up to a limit; a client that stops reading is one of the things to bear."""
    received = bytearray()
    headers = {"Authorization": f"Bearer {sandbox.token}"}
    with httpx2.Client(timeout=15, trust_env=False, verify=False) as client:
        try:
            with client.stream(
                "POST", f"{sandbox.http.base_url}execute", headers=headers, json={"code": "1", "language": "python"}
            ) as answer:
                assert "set-cookie" not in answer.headers
                assert "strict-transport-security" not in answer.headers
                assert answer.status_code in (200, 502), answer.status_code
                for part in answer.iter_raw():
                    received += part[:MIB]
                    if len(received) > limit:
                        break
        except httpx2.HTTPError:
            pass  # broken off, once the head had gone out
    return bytes(received)


def _by_mcp(ground: Ground, sandbox: Inside) -> dict[str, Any]:
    call = tool_call("execute_code_persistent", {"sandbox_id": sandbox.sandbox_id, "code": "1", "timeout": 5})
    with httpx2.Client(
        base_url=ground.server.url,
        headers={"Authorization": f"Bearer {ground.red}"},
        timeout=50,
        trust_env=False,
        verify=False,
    ) as client:
        answer = client.post("/mcp", **call)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) < 64 * MIB
    message = message_of(answer)
    return message.get("result", message)


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
