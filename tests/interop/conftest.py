"""Servers and sandboxes for the unmodified `hopx-ai` client."""

import gc
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import sign
from tests.e2e.running_server import RunningServer, data_directory, running_server
from tests.e2e.webhook_receiver import WebhookReceiver, webhook_receiver
from tests.interop import hopx
from tests.interop.fixed_host import FixedHost, server_options
from tests.interop.names import DOMAIN, FIXED_HOST, require_names, resolver

TIMEOUT_SECONDS = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The client closes neither its connections nor, in one place, files: that is not ours to report."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:hopx_ai"))


@pytest.fixture(autouse=True)
def collected_after_test() -> Iterator[None]:
    """What the client left open must not be found while other tests run."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="session")
def server(built_data_dir: Path) -> Iterator[RunningServer]:
    """A server without keys, which leaves nothing on the machine when it has ended."""
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, "--dev") as running:
        yield running


@pytest.fixture(scope="session")
def allowing(built_data_dir: Path) -> Iterator[RunningServer]:
    """A server whose webhooks may go to loopback."""
    options = ("--dev", "--allow-webhook", "127.0.0.1")
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, *options) as running:
        yield running


@pytest.fixture(scope="session")
def receiver() -> Iterator[WebhookReceiver]:
    """One to which webhooks may go."""
    with webhook_receiver() as made:
        yield made


@pytest.fixture(scope="session")
def keyed_server(built_data_dir: Path) -> Iterator[RunningServer]:
    """A server that wants keys."""
    with data_directory(built_data_dir) as data_dir, running_server(data_dir) as running:
        yield running


@pytest.fixture(scope="session")
def fixed_host(built_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FixedHost]:
    """A server with keys, TLS and a domain, which also answers for the name that some clients have built in."""
    require_names()
    directory = tmp_path_factory.mktemp("fixed-host")
    certificates = sign(directory, FIXED_HOST, DOMAIN, f"*.{DOMAIN}")
    home = directory / "home"
    home.mkdir()
    with (
        resolver(directory) as enter,
        data_directory(built_data_dir) as data_dir,
        running_server(data_dir, *server_options(certificates)) as running,
    ):
        yield FixedHost(running, certificates, enter, running.new_key("fixed-host"), home)


@pytest.fixture(scope="session")
def there(server: RunningServer) -> dict[str, Any]:
    """What every call of the client gets: the base URL, and a key, without which it refuses to start."""
    return {"base_url": server.url, "api_key": hopx.KEY}


@pytest.fixture(scope="module")
def sandbox(there: dict[str, Any]) -> Iterator[Any]:
    """One sandbox for the tests of a module."""
    created = hopx.client.Sandbox.create("code-interpreter", timeout_seconds=TIMEOUT_SECONDS, **there)
    try:
        yield created
    finally:
        created.kill()
        hopx.close(created)


@pytest.fixture
async def async_sandbox(there: dict[str, Any]) -> AsyncIterator[Any]:
    """A sandbox of the asynchronous client."""
    async with hopx.client.AsyncSandbox.create("code-interpreter", timeout_seconds=TIMEOUT_SECONDS, **there) as created:
        yield created
    await hopx.close_async(created)
