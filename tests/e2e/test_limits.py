"""Limits of sandboxes: who may ask for what, that they bite, and what is said of their use."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, clean_environment, data_directory, run_cove, running_server

from cove import Sandbox
from cove.models.errors import CoveError, InvalidRequest, LimitExceeded

MIB = 1024 * 1024
FILES = """
import errno
made = 0
try:
    for made in range(5000):
        open(f"/workspace/f{made}", "w").close()
except OSError as failure:
    print(made, errno.errorcode[failure.errno])
"""


@pytest.fixture(scope="module")
def server(built_data_dir: Path) -> Iterator[RunningServer]:
    """It wants keys, and its maxima are low."""
    with (
        data_directory(built_data_dir) as data_dir,
        running_server(data_dir, COVE_MAX_MEMORY_MB="2048", COVE_MAX_PIDS="600", COVE_POOL_SIZE="0") as running,
    ):
        yield running


@pytest.fixture(scope="module")
def key(server: RunningServer) -> str:
    """Of a namespace that has a limit, with one of its own."""
    made = server.new_key("k", "--namespace", "red", "--max-memory-mb", "1024", "--max-pids", "400")
    options = ("--max-disk-mb", "512", "--max-pids", "500", "--data-dir", str(server.data_dir))
    assert run_cove("namespaces", "limits", "red", *options).returncode == 0
    return made


@pytest.fixture(scope="module")
def free_key(server: RunningServer) -> str:
    """Only the server's maxima hold for it."""
    return server.new_key("free")


@pytest.fixture(scope="module")
def sandbox(server: RunningServer, key: str) -> Iterator[Sandbox]:
    asked = {"memory_mb": 256, "disk_mb": 128, "inodes": 600, "pids": 64, "open_files": 128, "cpu_share": 50}
    with Sandbox.create("base", base_url=server.url, api_key=key, resources=asked, timeout_seconds=300) as made:
        yield made


def refused(server: RunningServer, key: str, **resources: int) -> CoveError:
    with pytest.raises(CoveError) as caught:
        Sandbox.create("base", base_url=server.url, api_key=key, resources=resources)
    return caught.value


@pytest.mark.parametrize(
    ("mine", "resources", "most"),
    [
        (False, {"memory_mb": 4096}, 2048),
        (False, {"pids": 601}, 600),
        (False, {"cpu_share": 101}, 100),
        (True, {"memory_mb": 1025}, 1024),
        (True, {"pids": 401}, 400),
        (True, {"disk_mb": 513}, 512),
    ],
    ids=["server memory", "server pids", "server share", "key memory", "key pids", "namespace disk"],
)
def test_above_a_maximum(
    server: RunningServer, key: str, free_key: str, mine: bool, resources: dict[str, int], most: int
) -> None:
    failure = refused(server, key if mine else free_key, **resources)
    ((name, asked),) = resources.items()
    assert isinstance(failure, LimitExceeded)
    facts = {"field": f"resources.{name}", "limit": most, "current": asked, "available": most}
    assert facts.items() <= failure.details.items()
    assert str(most) in failure.remedy


def test_a_limit_that_nobody_knows_is_refused(server: RunningServer, free_key: str) -> None:
    body = {"template_name": "base", "resources": {"memory_mb": 512, "gpu": 1}}
    answer = httpx2.post(
        f"{server.url}/v1/sandboxes", json=body, headers={"X-API-Key": free_key}, timeout=30, trust_env=False
    )
    failure = answer.json()["error"]
    assert (answer.status_code, failure["code"]) == (400, "INVALID_REQUEST")
    assert "'gpu'" in failure["message"]
    assert "cpu_share" in failure["message"]
    with pytest.raises(InvalidRequest):
        Sandbox.create("base", base_url=server.url, api_key=free_key, resources={"gpu": 1})


def test_defaults_shrink_to_the_quota(server: RunningServer, key: str) -> None:
    with Sandbox.create("base", base_url=server.url, api_key=key, timeout_seconds=300) as made:
        limits = made.info.limits
    assert limits is not None
    assert (limits.memory_mb, limits.disk_mb, limits.pids) == (1024, 512, 400)


def test_a_sandbox_tells_its_limits(sandbox: Sandbox) -> None:
    info = sandbox.get_info()
    assert info.limits is not None
    assert (info.limits.inodes, info.limits.pids, info.limits.cpu_share) == (600, 64, 50)
    assert info.limits_not_enforced == ()
    assert info.resources is not None
    assert info.resources.model_dump() == {"vcpu": 2, "memory_mb": 256, "disk_mb": 128}


def test_use_is_counted_by_the_host(sandbox: Sandbox) -> None:
    before = sandbox.get_usage()
    result = sandbox.run_code("open('/workspace/large', 'wb').write(bytes(20 * 1024 * 1024)); print(1)")
    assert result.stdout == "1\n"
    after = sandbox.get_usage()
    assert after.disk_bytes is not None
    assert before.disk_bytes is not None
    assert 20 * MIB <= after.disk_bytes.used - before.disk_bytes.used < 30 * MIB
    assert after.disk_bytes.limit == 128 * MIB
    assert after.memory_bytes.limit == 256 * MIB
    assert 0 < after.memory_bytes.used <= 256 * MIB
    assert (after.pids.limit, after.limits.open_files) == (64, 128)
    assert after.cpu_seconds.used > before.cpu_seconds.used
    sandbox.files.remove("/workspace/large")


def test_inodes_bite(sandbox: Sandbox) -> None:
    made, reason = sandbox.run_code(FILES).stdout.split()
    assert reason == "ENOSPC"
    assert 300 < int(made) < 600
    used = sandbox.get_usage().inodes
    assert used is not None
    assert used.limit is not None
    assert used.used == used.limit <= 600
    assert sandbox.run_code("import glob, os; [os.remove(f) for f in glob.glob('/workspace/f*')]; print(2)").success


def test_open_files_bite(sandbox: Sandbox) -> None:
    result = sandbox.run_code("files = [open('/dev/null') for _ in range(200)]")
    assert not result.success
    assert "Too many open files" in result.stderr + str(result.model_dump())


def test_the_command_line_shows_limits_and_use(server: RunningServer, key: str, sandbox: Sandbox) -> None:
    options = ("--base-url", server.url, "--api-key", key)
    shown = run_cove("sandboxes", "show", sandbox.sandbox_id, *options)
    assert shown.returncode == 0, shown.stderr
    for text in ("isolation", "256.0 MiB", "128.0 MiB", "64", "#", "%", "shared kernel"):
        assert text in shown.stdout.decode(), text
    made = run_cove("sandboxes", "create", "base", "--limit", "memory_mb=300", "--limit", "pids=32", "--json", *options)
    info = json.loads(made.stdout)
    assert (info["limits"]["memory_mb"], info["limits"]["pids"]) == (300, 32)
    assert "auth_token" not in info
    assert run_cove("sandboxes", "kill", info["id"], *options).returncode == 0
    unknown = run_cove("sandboxes", "create", "base", "--limit", "gpu=1", *options)
    assert unknown.returncode == 1
    assert b"cpu_share" in unknown.stderr


def test_another_tenant_does_not_see_the_use(server: RunningServer, free_key: str, sandbox: Sandbox) -> None:
    answer = httpx2.get(
        f"{server.url}/v1/sandboxes/{sandbox.sandbox_id}/usage", headers={"X-API-Key": free_key}, trust_env=False
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "SANDBOX_NOT_FOUND")


def test_a_program_of_cove_run_has_limits(server: RunningServer) -> None:
    data_dir = ("--data-dir", str(server.data_dir))
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    ran = run_cove("run", code, "--template", "base", "--limit", "open_files=100", *data_dir)
    assert (ran.returncode, ran.stdout) == (0, b"100\n"), ran.stderr


def test_a_server_without_the_isolation_that_it_insists_on_does_not_start(built_data_dir: Path) -> None:
    with data_directory(built_data_dir) as data_dir:
        done = run_cove_serve(data_dir, "--isolation", "gvisor", COVE_RUNSC="/nowhere/runsc")
    assert done.returncode == 1
    assert "gvisor" in done.stderr
    assert "insisted on" in done.stderr
    assert "install" in done.stderr


def run_cove_serve(data_dir: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cove.cli.main", "serve", "--port", "0", "--data-dir", str(data_dir), *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=clean_environment(**variables), check=False
    )
