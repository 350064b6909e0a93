"""A control plane over a fake host, with a gateway at its local door, so that tools can speak to it."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from tests.server.conftest import Plane, Running

from cove.server.gateway.gateway import Gateway
from cove.server.gateway.settings import GatewaySettings
from cove.server.local_door import bind_local_door

StartPlane = Callable[..., AbstractAsyncContextManager[Plane]]
GRACE_SECONDS = 5.0


@asynccontextmanager
async def plane_with_door(**settings: object) -> AsyncGenerator[Plane]:
    """Both, for the time of the block."""
    directory = Path(tempfile.mkdtemp(prefix="cove-"))
    (directory / "run" / "server").mkdir(parents=True)
    running = Running(directory)
    try:
        plane = await running.start(**settings)
        gateway = Gateway(
            control_plane=plane.socket,
            directory=plane.control.directory,
            tokens=plane.control.tokens,
            audit=plane.control.engine.audit,
            settings=GatewaySettings(allowed_hosts=plane.control.settings.served_hosts),
        )
        serving = asyncio.create_task(gateway.serve([bind_local_door(directory)]))
        try:
            yield plane
        finally:
            plane.control.mcp.close()
            await running.stop()
            await gateway.close(GRACE_SECONDS)
            async with asyncio.timeout(GRACE_SECONDS):
                await serving
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
async def mcp_plane() -> AsyncIterator[Plane]:
    """One for the tests of a module."""
    async with plane_with_door() as plane:
        yield plane
