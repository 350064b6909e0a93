"""A server without keys, and the official client connected to tools that use it, without a process in between."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client
from tests.e2e.running_server import RunningServer, data_directory, running_server

from cove import Sandbox
from cove.mcp.one_caller import OneCaller
from cove.mcp.server import build_server
from cove.mcp.toolsets import Toolset
from cove.sdk import AsyncControlPlane

Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture(scope="session")
def mcp_server(built_data_dir: Path) -> Iterator[RunningServer]:
    """One server without keys for all tests of tools. It may send webhooks to loopback."""
    with (
        data_directory(built_data_dir) as data_dir,
        running_server(data_dir, "--dev", "--allow-webhook", "127.0.0.0/8") as running,
    ):
        yield running


@pytest.fixture
def connect(mcp_server: RunningServer) -> Connect:
    """`async with connect(toolset=...) as client`: a client of tools that act on `mcp_server`."""

    @asynccontextmanager
    async def connected(*, toolset: Toolset = Toolset.ALL, mode: str = "auto") -> AsyncGenerator[Client]:
        async with (
            AsyncControlPlane(base_url=mcp_server.url) as control,
            Client(build_server(OneCaller(control), toolset=toolset), mode=mode) as client,
        ):
            yield client

    return connected


@pytest.fixture(scope="module")
def sandbox_id(mcp_server: RunningServer) -> Iterator[str]:
    """A sandbox that the tests of a module share; none of them ends it."""
    with Sandbox.create(base_url=mcp_server.url, timeout_seconds=600) as sandbox:
        yield sandbox.sandbox_id
