# Generated from tests/sdk/test_async_websockets.py by tools/generate_sync_sdk.py. Do not edit.

"""WebSockets of the client against servers that misbehave."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from tests.sdk.websocket_server import websocket_server

from cove import Sandbox
from cove.models.errors import Conflict, CoveError, LimitExceeded, NotFound, PlatformFailure, Unsupported
from cove.models.frames import TerminalInput
from cove.sdk._endpoint import Endpoint
from cove.sdk._sync.websocket import Socket
from cove.sdk._sync.wire import Wire
from cove.sdk._websockets import websocket_url

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.sdk.conftest import Planes
    from tests.sdk.websocket_server import Script
    from websockets.sync.server import ServerConnection


HELLO = TerminalInput(type="input", data="hello")


def _open(url: str, *, socket_path: str | None = None, timeout: float = 10) -> Socket:
    wire = Wire(Endpoint(url, socket_path))
    return Socket.open(wire, url, "/terminal", headers=(("Authorization", "Bearer t"),), timeout=timeout)


@contextmanager
def _connected(script: Script, path: Path | None = None) -> Generator[Socket, None]:
    """A client of a server that follows `script`."""
    with websocket_server(script, path=path) as server, _open(server.url, socket_path=path and str(path)) as socket:
        yield socket


def _echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def test_frames_go_both_ways_and_the_token_is_shown() -> None:
    with websocket_server(_echo) as server:
        with _open(server.url) as socket:
            socket.send(HELLO)
            assert socket.receive(10) == {"type": "input", "data": "hello"}
            with pytest.raises(TimeoutError):
                socket.receive(0.01)
        (request,) = server.requests
        assert (request.path, request.headers["Authorization"]) == ("/terminal", "Bearer t")
        assert request.headers["User-Agent"].startswith("cove-python/")
        assert "Sec-WebSocket-Extensions" not in request.headers


def test_a_unix_socket_carries_websockets(tmp_path: Path) -> None:
    with _connected(_echo, tmp_path / "s") as socket:
        socket.send(HELLO)
        assert (socket.receive(10) or {})["data"] == "hello"


def test_the_other_side_says_goodbye() -> None:
    with _connected(lambda connection: connection.close()) as socket:
        assert socket.receive(10) is None
        assert socket.receive(10) is None
        with pytest.raises(Conflict, match="ended"):
            socket.send(HELLO)


def test_the_connection_is_lost() -> None:
    with _connected(lambda connection: connection.close_socket()) as socket:
        with pytest.raises(PlatformFailure, match="lost") as caught:
            socket.receive(10)
        assert caught.value.code == "NETWORK_ERROR"


@pytest.mark.parametrize(("code", "named"), [(4001, "taken over"), (1009, "size"), (1011, "1011: why")])
def test_why_the_other_side_has_closed(code: int, named: str) -> None:
    with _connected(lambda peer: peer.close(code, "why")) as socket, pytest.raises(CoveError, match=named):
        socket.receive(10)


@pytest.mark.parametrize("message", ["", "no json", "[1]", "null", b"\xff\xff", "[" * 100_000])
def test_what_is_no_frame(message: str | bytes) -> None:
    with _connected(lambda peer: peer.send(message)) as socket, pytest.raises(PlatformFailure, match="JSON object"):
        socket.receive(10)


def test_a_frame_that_is_too_large() -> None:
    def flood(connection: ServerConnection) -> None:
        connection.send(json.dumps({"type": "output", "data": "x" * 17_000_000}))

    with _connected(flood) as socket, pytest.raises(LimitExceeded, match="more than 16777216 bytes"):
        socket.receive(30)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, {"error": "x", "code": "FILE_NOT_FOUND"}, "FILE_NOT_FOUND"),
        (403, {"code": "RESOURCE_LIMIT_EXCEEDED", "message": "x"}, "RESOURCE_LIMIT_EXCEEDED"),
        (502, None, "AGENT_UNREACHABLE"),
        (200, None, "AGENT_UNREACHABLE"),
    ],
)
def test_a_refused_handshake(status: int, body: dict[str, Any] | None, code: str) -> None:
    with websocket_server(_echo) as server:
        server.refuse(status, b"<html>" if body is None else json.dumps(body).encode())
        with pytest.raises(CoveError) as caught:
            _open(server.url)
        assert caught.value.code == code


def test_a_redirect_is_not_followed() -> None:
    with websocket_server(_echo) as target, websocket_server(_echo) as server:
        server.refuse(302, b"", Location=target.url.replace("http", "ws", 1))
        with pytest.raises(CoveError, match="redirect"):
            _open(server.url)
        assert target.requests == []


def test_nobody_answers(unused_url: str) -> None:
    with pytest.raises(PlatformFailure, match="No WebSocket") as caught:
        _open(unused_url)
    assert caught.value.code == "NETWORK_ERROR"


def test_a_silent_server(silent_url: str) -> None:
    began = time.monotonic()
    with pytest.raises(PlatformFailure) as caught:
        _open(silent_url, timeout=0.2)
    assert caught.value.code == "TIMEOUT"
    assert time.monotonic() - began < 5


def test_an_expired_token_is_renewed_once(planes: Planes) -> None:
    expired = json.dumps({"code": "TOKEN_EXPIRED", "error": "The token has expired."}).encode()
    with websocket_server(_exits) as server:
        sandbox = Sandbox.connect(planes.add(public_host=server.url)["id"])
        server.refuse(401, expired)
        with sandbox.terminal.connect() as terminal:
            assert list(terminal) == ["bye"]
            assert terminal.exit_code == 3
        tokens = [request.headers["Authorization"] for request in server.requests]
        assert tokens == ["Bearer token-1", "Bearer token-2"]
        server.refuse(401, expired)
        server.refuse(401, expired)
        with pytest.raises(CoveError, match="expired"):
            sandbox.terminal.connect()
        sandbox.close()


def test_a_terminal_of_unknown_frames(planes: Planes) -> None:
    def talk(connection: ServerConnection) -> None:
        for frame in ({"type": "news"}, {"no": "type"}, {"type": "output", "data": "a"}, {"type": "exit", "code": "x"}):
            connection.send(json.dumps(frame))
        connection.recv(10)

    with websocket_server(talk) as server:
        sandbox = Sandbox.connect(planes.add(public_host=server.url)["id"])
        with sandbox.terminal.connect() as terminal:
            assert list(terminal) == ["a"]
            assert terminal.exit_code == 1
        sandbox.close()


def test_the_agent_refuses_in_the_middle(planes: Planes) -> None:
    refusal = {"type": "error", "code": "FILE_NOT_FOUND", "message": "gone", "remedy": "look"}

    def refuse(connection: ServerConnection) -> None:
        connection.send(json.dumps(refusal))
        connection.recv(10)

    with websocket_server(refuse) as server:
        sandbox = Sandbox.connect(planes.add(public_host=server.url)["id"])
        with pytest.raises(NotFound, match="gone look"):
            sandbox.terminal.connect(session="new")
        with sandbox.terminal.connect() as terminal, pytest.raises(NotFound, match="gone look"):
            terminal.next_frame()
        with pytest.raises(NotFound, match="gone look"):
            next(iter(sandbox.files.watch()))
        sandbox.close()


def test_a_given_transport_carries_no_websockets(planes: Planes) -> None:
    transport = httpx2.HTTPTransport(uds=planes.socket_path, verify=False)
    with Sandbox.create(transport=transport) as sandbox, pytest.raises(Unsupported, match="transport"):
        sandbox.terminal.connect()
    transport.close()


def test_addresses() -> None:
    assert websocket_url("http://host:1/a", "/terminal") == "ws://host:1/a/terminal"
    assert websocket_url("https://host", "/x?y=1") == "wss://host/x?y=1"
    for origin in ("", "ftp://host", "host"):
        with pytest.raises(CoveError, match="not an address"):
            websocket_url(origin, "/x")


def _exits(connection: ServerConnection) -> None:
    connection.send(json.dumps({"type": "output", "data": "bye"}))
    connection.send(json.dumps({"type": "exit", "code": 3}))
