"""An engine over a fake host and a real store, for tests of core."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.core.world import World


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory with a path short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="cove-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def world(socket_dir: Path) -> AsyncIterator[World]:
    """Not started: its loops run only in tests that start them."""
    made = World(socket_dir)
    await made.open()
    yield made
    await made.close()
