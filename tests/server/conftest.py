"""A real control plane behind uvicorn on a unix socket, over a fake host."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import structlog
import uvicorn
from tests.core.fake_host import FakeHost
from tests.server.prompt_server import PromptServer

from cove.server.app import ControlPlane, build_control_plane
from cove.server.logs import configure_logging
from cove.server.settings import Settings


@dataclass
class Plane:
    """A running control plane, a client with a key of the namespace `default`, and one of another namespace."""

    control: ControlPlane
    host: FakeHost
    socket: Path
    client: httpx2.AsyncClient
    stranger: httpx2.AsyncClient
    nobody: httpx2.AsyncClient


class Running:
    """Starts control planes and stops them again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = FakeHost(directory)
        self._serving: list[tuple[PromptServer, asyncio.Task[None]]] = []
        self._clients: list[httpx2.AsyncClient] = []

    async def start(self, **settings: object) -> Plane:
        fields = {"data_dir": self.directory, "pool_size": 0, "reconcile_seconds": 30.0, **settings}
        control = build_control_plane(Settings.model_validate(fields), self.host)
        socket = self.directory / "control.sock"
        config = uvicorn.Config(control.app, uds=str(socket), log_config=None, access_log=False, lifespan="on")
        server = PromptServer(config)
        self._serving.append((server, asyncio.create_task(server.serve())))
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.005)
        alice = await control.keys.create("alice")
        bob = await control.keys.create("bob", namespace="other")
        return Plane(
            control,
            self.host,
            socket,
            self.client(socket, {"X-API-Key": alice.key}),
            self.client(socket, {"Authorization": f"Bearer {bob.key}"}),
            self.client(socket, {}),
        )

    def client(self, socket: Path, headers: dict[str, str]) -> httpx2.AsyncClient:
        made = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=str(socket), verify=False),
            base_url="http://127.0.0.1:5555",
            headers=headers,
            timeout=20,
        )
        self._clients.append(made)
        return made

    async def stop_server(self) -> None:
        """Stop what serves; the host goes on."""
        for client in self._clients:
            await client.aclose()
        for server, task in self._serving:
            server.end()
            async with asyncio.timeout(20):
                await task
        self._clients.clear()
        self._serving.clear()

    async def stop(self) -> None:
        self.host.hang.set()
        self.host.driver.gate.set()
        self.host.down = self.host.refuse_destroy = False
        await self.stop_server()
        await self.host.driver.close()


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """Logs as the server writes them, to nowhere (structlog's own default formats tracebacks for seconds)."""
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        configure_logging(Settings(log_format="json"), stream=nowhere)
        yield
    structlog.reset_defaults()


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory with a path short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="cove-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def running(socket_dir: Path) -> AsyncIterator[Running]:
    made = Running(socket_dir)
    yield made
    await made.stop()


@pytest.fixture(scope="module")
async def shared_plane() -> AsyncIterator[Plane]:
    """One for the tests of a module that change nothing, or only what they have made."""
    directory = Path(tempfile.mkdtemp(prefix="cove-"))
    made = Running(directory)
    try:
        yield await made.start()
        await made.stop()
    finally:
        shutil.rmtree(directory)


@pytest.fixture
async def plane(running: Running) -> Plane:
    return await running.start()
