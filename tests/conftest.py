"""Fixtures that several parts share. Everything made here is removed again, also when a test fails."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.internet import Internet

from cove.host.templates.store import TemplateStore
from cove.models.errors import CoveError
from cove.server.settings import default_data_dir

# A shell starts what runs beside it with SIGINT ignored, and the programs under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long inputs take to make says something about the machine, and nothing about what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Everything asynchronous here runs on asyncio."""
    return "asyncio"


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A temporary directory with a path short enough for unix sockets (unix(7): 107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="cove-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def built_data_dir() -> Path:
    """The data directory in which `make setup` has built the templates."""
    return Path(os.environ.get("COVE_DATA_DIR") or default_data_dir())


@pytest.fixture
def data_dir(short_dir: Path, built_data_dir: Path) -> Path:
    """A data directory of its own for one test, with the templates that are built on this machine."""
    for name in ("base", "code-interpreter"):
        try:
            TemplateStore(built_data_dir, owner=None).get(name)
        except CoveError:
            pytest.skip(f"the template {name} is not built: run `make setup`")
    for name in ("templates", "layers"):
        (short_dir / name).symlink_to(built_data_dir / name)
    return short_dir


@pytest.fixture
def as_root() -> None:
    """Skip, with the reason, where the test needs root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """Network namespaces with real servers; skips where they cannot be made."""
    with Internet.started(tmp_path_factory.mktemp("internet")) as internet:
        yield internet


def mounted_below(directory: Path) -> list[str]:
    """Mount points below `directory`, as the kernel lists them."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(f"{directory}/")]


def loop_devices_of(directory: Path) -> list[str]:
    """Loop devices whose file is below `directory`."""
    listing = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True, timeout=10).stdout
    return [line for line in listing.splitlines() if str(directory) in line]
