"""A server with keys that clients of microsandbox reach over its port."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, data_directory, run_cove, running_server

MakeKey = Callable[..., str]


@pytest.fixture(scope="session")
def allowed_volume() -> Iterator[Path]:
    """A directory that the server's operator lets be copied into sandboxes, and that the server's user can read."""
    with tempfile.TemporaryDirectory(prefix="cove-allowed-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(scope="session")
def keyed(built_data_dir: Path, allowed_volume: Path) -> Iterator[RunningServer]:
    """One for all tests of the route."""
    options = ("--allow-volume", str(allowed_volume))
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, *options) as running:
        yield running


@pytest.fixture(scope="session")
def make_key(keyed: RunningServer) -> MakeKey:
    """`make_key("--namespace", ...)`: a key of the server."""

    def make(*options: str) -> str:
        made = run_cove("keys", "create", *options, "--quiet", "--data-dir", str(keyed.data_dir))
        assert made.returncode == 0, made.stderr
        return made.stdout.decode().strip()

    return make


@pytest.fixture(scope="session")
def operator_key(make_key: MakeKey) -> str:
    """One that may enter every namespace."""
    return make_key("--namespace", "*")


@pytest.fixture
def http(keyed: RunningServer, operator_key: str) -> Iterator[httpx2.Client]:
    """Requests with that key."""
    headers = {"Authorization": f"Bearer {operator_key}"}
    with httpx2.Client(base_url=keyed.url, headers=headers, timeout=60, trust_env=False, verify=False) as client:
        yield client
