"""A gateway on loopback with real unix-socket upstreams, and a client that shows raw responses."""

import asyncio
import contextlib
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from tests.server.prompt_server import PromptServer

from cove.core.ports import SandboxEnds
from cove.core.principal import Origin
from cove.core.tokens import AgentClaims, PreviewClaims
from cove.models.errors import error
from cove.models.previews import PreviewTerms
from cove.models.sandboxes import SandboxStatus
from cove.server.gateway import Gateway, GatewaySettings, ServerCertificate

WAIT = 10.0
SANDBOX_A = "1763382095aaaaaaaa"
SANDBOX_B = "1763382095bbbbbbbb"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Directory(dict[str, Path]):
    """Agents by sandbox id."""

    def socket_of(self, sandbox_id: str) -> Path | None:
        """See `AgentDirectory`."""
        return self.get(sandbox_id)

    def state_of(self, sandbox_id: str) -> SandboxStatus | None:
        """See `AgentDirectory`."""
        return SandboxStatus.RUNNING if sandbox_id in self else None

    def previews_of(self, sandbox_id: str) -> PreviewTerms | None:
        """See `AgentDirectory`."""
        return PreviewTerms() if sandbox_id in self else None


class Tokens:
    """Tokens of the form `ok.<sandbox id>.sig`, `old.<sandbox id>.sig`; of links: `link.<sandbox id>-<port>.sig`."""

    def claims(self, token: str) -> AgentClaims:
        """See `TokenVerifier`."""
        kind, sandbox_id, _ = token.split(".")
        if kind == "ok":
            return AgentClaims(sandbox_id, "the-key")
        if kind == "old":
            raise error("TOKEN_EXPIRED", "The token has expired.")
        raise error("UNAUTHORIZED", "The token is not valid.")

    def preview_claims(self, token: str) -> PreviewClaims:
        """See `TokenVerifier`."""
        kind, _, subject = token.removesuffix(".sig").partition(".")
        if kind != "link":
            raise error("UNAUTHORIZED", "The link is not valid.")
        sandbox_id, _, port = subject.partition("-")
        return PreviewClaims(sandbox_id, int(port), 0, 2_000_000_000)


@dataclass
class Notes:
    """What the audit log is told."""

    passed: list[tuple[str, str, str, str, int]] = field(default_factory=list[tuple[str, str, str, str, int]])
    turned_away: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def to_agent(self, sandbox_id: str, actor: str, action: str, route: str, size: int, origin: Origin) -> None:
        """See `Audit`."""
        assert (origin.request_id, origin.address) != ("", "")
        self.passed.append((sandbox_id, actor, action, route, size))

    def refused(self, principal: None, route: str, subject: str, code: str, origin: Origin) -> None:
        """See `Audit`."""
        assert (principal, subject, origin.address) == (None, "", "127.0.0.1")
        self.turned_away.append((route, code))


@dataclass
class Reply:
    """One response as it was on the wire, with its body decoded."""

    status: int
    head: bytes
    body: bytes
    headers: dict[str, str]


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Sends and flushes."""
        self.writer.write(data)
        async with asyncio.timeout(WAIT):
            await self.writer.drain()

    async def reply(self, *, method: str = "GET") -> Reply:
        """Reads one response."""
        async with asyncio.timeout(WAIT):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
            body = b"" if method == "HEAD" or status in (101, 204, 304) or status == 100 else await self._body(headers)
            return Reply(status, head, body, headers)

    async def rest(self) -> bytes:
        """Everything until the gateway closes."""
        async with asyncio.timeout(WAIT):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = bytearray()
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return bytes(body)


@dataclass
class Harness:
    """The gateway under test and what is around it."""

    gateway: Gateway
    port: int
    folder: Path
    directory: Directory
    stack: contextlib.AsyncExitStack
    notes: Notes
    accepted: dict[str, int] = field(default_factory=dict[str, int])
    upstreams: list[PromptServer] = field(default_factory=list[PromptServer])

    @property
    def control(self) -> Path:
        """Socket of the control plane."""
        return self.folder / "control.sock"

    def agent(self, sandbox_id: str) -> Path:
        """Socket of a sandbox's agent, which is from now on in the directory."""
        return self.directory.setdefault(sandbox_id, self.folder / f"{sandbox_id}.sock")

    async def raw(self, path: Path, handler: Handler) -> None:
        """Starts an upstream that does what `handler` does, and counts its connections."""
        tasks: set[asyncio.Task[Any]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.current_task())  # type: ignore[arg-type]
            self.accepted[path.name] = self.accepted.get(path.name, 0) + 1
            try:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await handler(reader, writer)
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
            finally:
                writer.transport.abort()

        server = await asyncio.start_unix_server(serve, str(path))

        async def stop() -> None:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.stack.push_async_callback(stop)

    async def answering(self, path: Path, response: bytes) -> None:
        """Starts an upstream that reads a request head and sends `response`, then waits for the end."""

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
            await writer.drain()
            await reader.read()

        await self.raw(path, handler)

    async def asgi(self, path: Path, app: Any, **options: Any) -> None:
        """Starts an upstream that is `app` in uvicorn."""
        config = uvicorn.Config(
            app, lifespan="off", log_level="critical", access_log=False, timeout_graceful_shutdown=1, **options
        )
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen(128)
        server = PromptServer(config)
        task = asyncio.create_task(server.serve(sockets=[sock]))

        self.upstreams.append(server)

        async def stop() -> None:
            for one in self.upstreams:  # all of them now, so that they end beside one another
                one.end()
            await task
            sock.close()

        self.stack.push_async_callback(stop)

    async def connect(self) -> Client:
        """A client connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def close() -> None:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        self.stack.push_async_callback(close)
        return Client(reader, writer)

    async def ask(self, raw: bytes, *, method: str = "GET") -> Reply:
        """One request on a connection of its own."""
        client = await self.connect()
        await client.send(raw)
        return await client.reply(method=method)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for `condition`."""
        async with asyncio.timeout(WAIT):
            while not condition():
                await asyncio.sleep(0.005)


Start = Callable[..., Awaitable[Harness]]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops: their transports differ in what they call when."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a gateway with the given settings; everything ends with the test."""
    folder = Path(tempfile.mkdtemp(prefix="cove-gw-"))
    async with contextlib.AsyncExitStack() as stack:

        async def begin(
            *, certificate: ServerCertificate | None = None, ends: SandboxEnds | None = None, **settings: Any
        ) -> Harness:
            directory, notes = Directory(), Notes()
            gateway = Gateway(
                control_plane=folder / "control.sock",
                directory=directory,
                tokens=Tokens(),
                audit=notes,
                settings=GatewaySettings(**cast(dict[str, Any], {"linger_seconds": 0.2, **settings})),
                certificate=certificate,
                ends=ends,
            )
            sock = socket.create_server(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            task = asyncio.create_task(gateway.serve([sock]))

            async def stop() -> None:
                await gateway.close(0.0)
                async with asyncio.timeout(WAIT):
                    await task

            stack.push_async_callback(stop)
            return Harness(gateway, port, folder, directory, stack, notes)

        yield begin
    for _ in range(5):  # the loop tells transports of their end in later turns
        await asyncio.sleep(0)
    shutil.rmtree(folder)


@pytest.fixture
async def gw(start: Start) -> Harness:
    """A gateway with the default settings."""
    return await start()
