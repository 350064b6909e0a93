"""Clients of the agent's WebSockets: one like those that people use, one that sees what arrives when."""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame
from websockets.uri import parse_uri

SECONDS = 20.0


class Client:
    """A WebSocket of the agent."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **frame: Any) -> None:
        """Send one frame."""
        await self.connection.send(json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(SECONDS):
            return json.loads(await self.connection.recv())

    async def rest(self) -> list[dict[str, Any]]:
        """All frames until the agent closes."""
        frames: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    frames.append(json.loads(await self.connection.recv()))
        except ConnectionClosed:
            return frames

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Frames up to the first one that is wanted."""
        frames = [await self.receive()]
        while not wanted(frames[-1]):
            frames.append(await self.receive())
        return frames

    async def shown(self, text: str) -> str:
        """What a terminal shows, up to `text`."""
        output = ""
        while text not in output:
            frame = await self.receive()
            assert frame["type"] == "output", frame
            output += frame["data"]
        return output

    async def closed(self) -> tuple[int | None, str | None]:
        """Code and reason, when the agent has closed."""
        async with asyncio.timeout(SECONDS):
            await self.connection.wait_closed()
        return self.connection.close_code, self.connection.close_reason


@asynccontextmanager
async def websocket(address: str, path: str, **options: Any) -> AsyncGenerator[Client]:
    """An open WebSocket to the agent that listens at `address`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(address)
    options.setdefault("close_timeout", 1)
    async with connect(f"ws://agent{path}", sock=sock, open_timeout=SECONDS, **options) as connection:
        yield Client(connection)


class RawClient:
    """A client that does only what it is told, and notes when each piece of data came.

    Attributes:
        arrivals: time and frames of each read.
    """

    def __init__(self, address: str, path: str, *, headers: str = "") -> None:
        self._protocol = ClientProtocol(parse_uri(f"ws://agent{path}"))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(SECONDS)
        self.socket.connect(address)
        self.arrivals: list[tuple[float, list[Frame]]] = []
        request = self._protocol.connect()
        for line in headers.splitlines():
            name, _, value = line.partition(": ")
            request.headers[name] = value
        self._protocol.send_request(request)
        self.flush()
        while self._protocol.state.name == "CONNECTING":
            self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def closed(self) -> bool:
        """Whether the agent has closed."""
        return self._protocol.state.name == "CLOSED"

    @property
    def close_code(self) -> int | None:
        """What it said then."""
        received = self._protocol.close_rcvd
        return None if received is None else received.code

    def send(self, **frame: Any) -> None:
        """Send one frame."""
        self._protocol.send_text(json.dumps(frame).encode())
        self.flush()

    def send_frame(self, opcode: Any, data: bytes, *, fin: bool = True, rsv1: bool = False) -> None:
        """Send any frame, right or wrong."""
        self.socket.sendall(Frame(opcode, data, fin=fin, rsv1=rsv1).serialize(mask=True))

    def flush(self) -> None:
        """Send what the protocol has to say."""
        for data in self._protocol.data_to_send():
            if data:
                self.socket.sendall(data)

    def read(self) -> list[Any]:
        """Take what has arrived; wait for it."""
        data = self.socket.recv(1024 * 1024)
        now = time.monotonic()
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        events = self._protocol.events_received()
        self.arrivals.append((now, [event for event in events if isinstance(event, Frame)]))
        return events

    def read_until_closed(self, *, obey: bool = True) -> None:
        """Read all; with `obey`, answer pings and the close."""
        while not self.closed:
            self.read()
            if obey:
                try:
                    self.flush()
                except OSError:
                    continue


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def resident_bytes(pid: int) -> int:
    """Of the process, now."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
