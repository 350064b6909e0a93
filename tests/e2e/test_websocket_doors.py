"""Who may open a WebSocket to a sandbox, whatever its address; and what comes in through it is bounded."""

import base64
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.e2e.running_server import RunningServer

from cove.core.tokens import LIFETIME_SECONDS, AgentTokens
from cove.models.frames import MAX_FRAME_BYTES

PATHS = ["/terminal", "/execute/stream", "/files/watch", "/commands/stream", "/stream", "/stream/ipython"]
SECONDS = 20.0
MIB = 1024 * 1024


class Place(NamedTuple):
    """Two sandboxes, and tokens of the first by name."""

    server: RunningServer
    sandboxes: tuple[dict[str, Any], dict[str, Any]]
    tokens: dict[str, str]

    def addresses(self, path: str) -> list[tuple[str, str]]:
        """Host and path: every way to name the first sandbox."""
        sandbox_id = self.sandboxes[0]["id"]
        return [
            ("127.0.0.1", f"/sandboxes/{sandbox_id}{path}"),
            ("127.0.0.1", f"/sandboxes/{sandbox_id}/ports/7777{path}"),
            (f"7777-{sandbox_id}.example.org", path),
        ]


@pytest.fixture(scope="module")
def place(server: RunningServer) -> Iterator[Place]:
    with httpx2.Client(base_url=server.url, timeout=30, trust_env=False, verify=False) as api:
        one, two = (api.post("/v1/sandboxes", json={"template_name": "base"}).json() for _ in range(2))
        key = server.data_dir / "keys" / "agent-tokens.pem"
        long_ago = AgentTokens.load(key, clock=lambda: time.time() - LIFETIME_SECONDS - 1)
        tokens = {
            "own": one["auth_token"],
            "expired": long_ago.issue(one["id"]).auth_token,
            "another's": two["auth_token"],
            "forged": one["auth_token"].rpartition(".")[0] + ".AAAA",
            "a key": "hopx_live_000000000000." + "x" * 43,
            "nothing": "",
        }
        try:
            yield Place(server, (one, two), tokens)
        finally:
            for sandbox in (one, two):
                api.delete(f"/v1/sandboxes/{sandbox['id']}")


def knock(server: RunningServer, host: str, path: str, token: str) -> tuple[int, str]:
    """Status and code of the answer to a handshake."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=SECONDS)
    try:
        connection.request("GET", path, headers=handshake(host, token))
        answer = connection.getresponse()
        body = b"{}" if answer.status == 101 else answer.read()
        return answer.status, json.loads(body).get("code", "")
    finally:
        connection.close()


def handshake(host: str, token: str) -> dict[str, str]:
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    key = base64.b64encode(os.urandom(16)).decode()
    fields = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
    return {"Host": host, **fields, **authorization}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("own", (101, "")),
        ("expired", (401, "TOKEN_EXPIRED")),
        ("another's", (403, "FORBIDDEN")),
        ("forged", (401, "UNAUTHORIZED")),
        ("a key", (401, "UNAUTHORIZED")),
        ("nothing", (401, "UNAUTHORIZED")),
    ],
)
def test_only_its_own_valid_token_opens_it(place: Place, path: str, token: str, expected: tuple[int, str]) -> None:
    for host, target in place.addresses(path):
        assert knock(place.server, host, target, place.tokens[token]) == expected, (host, target)
    if token != "another's":  # by the token alone it would lead to the other sandbox
        assert knock(place.server, "127.0.0.1", path, place.tokens[token]) == expected


def test_after_the_end_of_a_sandbox(server: RunningServer) -> None:
    with httpx2.Client(base_url=server.url, timeout=30, trust_env=False, verify=False) as api:
        sandbox = api.post("/v1/sandboxes", json={"template_name": "base"}).json()
        assert api.delete(f"/v1/sandboxes/{sandbox['id']}").status_code == 200
        for prefix in ("", f"/sandboxes/{sandbox['id']}"):
            for path in PATHS:
                assert knock(server, "127.0.0.1", prefix + path, sandbox["auth_token"]) == (404, "SANDBOX_NOT_FOUND")
        port = api.get(f"/sandboxes/{sandbox['id']}/ports/3000/")
        assert (port.status_code, port.json()["code"]) == (404, "SANDBOX_NOT_FOUND")
        callback = {"code": "1", "callback_url": "http://192.0.2.1/"}
        headers = {"Authorization": f"Bearer {sandbox['auth_token']}"}
        refused = api.post(f"/sandboxes/{sandbox['id']}/execute/async", json=callback, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (404, "SANDBOX_NOT_FOUND")


@pytest.mark.parametrize("path", PATHS)
def test_a_frame_of_a_hundred_megabytes_is_refused_by_its_head(place: Place, path: str) -> None:
    record = place.server.record(place.sandboxes[0]["id"])
    assert record
    pids = (place.server.pid, record["pid"])
    before = [resident_bytes(pid) for pid in pids]
    address = urlsplit(place.server.url)
    with socket.create_connection((str(address.hostname), address.port or 0), SECONDS) as client:
        lines = [f"{name}: {value}" for name, value in handshake("127.0.0.1", place.tokens["own"]).items()]
        client.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 101")
        size = 100 * MIB
        assert size > MAX_FRAME_BYTES
        try:
            client.sendall(bytes([0x81, 0xFF]) + size.to_bytes(8, "big") + bytes(4))
            for _ in range(100):
                client.sendall(bytes(MIB))
        except OSError:
            pass  # it has hung up, as it may
        received = b""
        while more := client.recv(65536):
            received += more
    assert (1009).to_bytes(2, "big") + b"frame" in received
    assert all(resident_bytes(pid) - old < 8 * MIB for pid, old in zip(pids, before, strict=True))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
