"""Servers for end-to-end tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, data_directory, running_server
from tests.e2e.webhook_receiver import WebhookReceiver, webhook_receiver

Serve = Callable[..., RunningServer]


@pytest.fixture(scope="session")
def server(built_data_dir: Path) -> Iterator[RunningServer]:
    """One server without keys for all tests that leave it as it was."""
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, "--dev") as running:
        yield running


@pytest.fixture(scope="session")
def api(server: RunningServer) -> Iterator[httpx2.Client]:
    """Plain HTTP to it."""
    with httpx2.Client(base_url=server.url, timeout=30, trust_env=False, verify=False) as client:
        yield client


@pytest.fixture(scope="session")
def keyed_server(built_data_dir: Path) -> Iterator[RunningServer]:
    """One server that wants keys."""
    with data_directory(built_data_dir) as data_dir, running_server(data_dir) as running:
        yield running


@pytest.fixture(scope="session")
def allowing(built_data_dir: Path) -> Iterator[RunningServer]:
    """One server that may send webhooks to loopback."""
    with (
        data_directory(built_data_dir) as data_dir,
        running_server(data_dir, "--dev", "--allow-webhook", "127.0.0.0/8") as running,
    ):
        yield running


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as made:
        yield made


@pytest.fixture
def own_data_dir(built_data_dir: Path) -> Iterator[Path]:
    """A data directory for one test; nothing of it may be left at its end."""
    with data_directory(built_data_dir) as path:
        yield path


@pytest.fixture
def serve(own_data_dir: Path) -> Iterator[Serve]:
    """Start servers on the test's data directory; those still running at its end are stopped."""
    with ExitStack() as stack:

        def start(*options: str, **variables: str) -> RunningServer:
            server = RunningServer.start(own_data_dir, "--dev", *options, **variables)
            stack.callback(_stop, server)
            return server

        yield start


def _stop(server: RunningServer) -> None:
    if server.process.poll() is None:
        server.stop()
