"""A whole server of an ordinary user: programs, previews, terminals, watches, and what `cove doctor` says there."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, clean_environment, data_directory
from tests.ordinary_user import USER, ordinary_python

from cove import Sandbox
from cove.models.errors import CoveError
from cove.models.frames import ChangeFrame

PROGRAM = """
import http.server, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page of the sandbox")
server = http.server.HTTPServer(("127.0.0.1", 3000), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
"""


@pytest.fixture(scope="module")
def place(built_data_dir: Path) -> Iterator[tuple[tuple[str, ...], Path]]:
    """The user's Python, and a data directory of theirs."""
    with data_directory(built_data_dir) as data_dir:
        program = (*ordinary_python(data_dir), "-m", "cove.cli.main")
        if os.geteuid() == 0:
            os.chown(data_dir, USER, USER)
        yield program, data_dir


@pytest.fixture(scope="module")
def diagnosis(place: tuple[tuple[str, ...], Path]) -> dict[str, Any]:
    program, data_dir = place
    done = subprocess.run(
        [*program, "doctor", "--json", "--data-dir", str(data_dir)],
        capture_output=True,
        timeout=60,
        cwd="/",
        env=clean_environment(),
        check=False,
    )
    found = json.loads(done.stdout)
    namespace = next(driver for driver in found["drivers"] if driver["isolation"] == "namespace")
    if not namespace["available"]:
        assert namespace["remedies"], namespace
        pytest.skip(f"ordinary users cannot start sandboxes here: {namespace['problems']}")
    assert done.returncode == 0
    return {**found, "namespace": namespace}


def test_networks_are_possible(diagnosis: dict[str, Any]) -> None:
    assert [found for found in diagnosis["findings"] if found["name"] == "networks" and found["state"] != "ok"] == []


@pytest.fixture(scope="module")
def server_url(place: tuple[tuple[str, ...], Path], diagnosis: dict[str, Any]) -> Iterator[str]:
    program, data_dir = place

    class UsersServer(RunningServer):
        pass

    UsersServer.program = program
    server = UsersServer.start(data_dir, "--dev")
    try:
        assert os.stat(f"/proc/{server.process.pid}").st_uid == (USER if os.geteuid() == 0 else os.geteuid())
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="module")
def sandbox(server_url: str) -> Iterator[Sandbox]:
    with Sandbox.create("base", base_url=server_url) as made:
        yield made


def test_a_program_runs(sandbox: Sandbox) -> None:
    assert sandbox.run_code("print(6 * 7)").stdout == "42\n"


def test_a_page_of_a_program_is_seen(sandbox: Sandbox) -> None:
    assert sandbox.run_code(PROGRAM).success
    answer = httpx2.get(sandbox.get_preview_url(3000), timeout=20, follow_redirects=True, trust_env=False)
    assert (answer.status_code, answer.text) == (200, "a page of the sandbox")


def test_a_terminal_has_a_screen(sandbox: Sandbox) -> None:
    with sandbox.terminal.connect(cols=100, rows=30) as terminal:
        terminal.send("stty size; exit 7\n")
        assert "30 100" in "".join(terminal)
        assert terminal.exit_code == 7


def test_changes_of_files_are_seen(sandbox: Sandbox) -> None:
    with sandbox.files.watch(timeout=20) as changes:
        sandbox.files.write("/workspace/new.txt", "x")
        seen = next(change for change in changes if isinstance(change, ChangeFrame))
    assert seen.path == "/workspace/new.txt"


def test_a_network_within_a_policy(sandbox: Sandbox, server_url: str) -> None:
    """Allowed is everything public: what is not is refused by the user's own egress program, which says why."""
    path = f"{server_url}/v1/sandboxes/{sandbox.sandbox_id}/network"
    connect = (
        "import socket; s = socket.create_connection(('169.254.169.254', 80), 5); s.settimeout(5); print(s.recv(1))"
    )
    assert "unreachable" in (sandbox.run_code(connect).stderr)
    assert httpx2.put(path, json={"preset": "public"}, trust_env=False).status_code == 200
    assert "ConnectionResetError" in sandbox.run_code(connect).stderr
    entries = httpx2.get(path, trust_env=False).json()["entries"]
    assert [(entry["address"], entry["reason"]) for entry in entries] == [
        ("169.254.169.254", "its address is link-local")
    ]
    assert httpx2.put(path, json={"preset": "none"}, trust_env=False).status_code == 200
    assert "ConnectionRefusedError" in sandbox.run_code(connect).stderr


def test_what_this_user_lacks_is_said_with_the_command_that_helps(diagnosis: dict[str, Any]) -> None:
    lost = " ".join(diagnosis["namespace"]["lost"])
    assert "sudo cove serve" in lost, "what needs root"
    enforced = diagnosis["namespace"]["capabilities"]["limits"]
    assert ("memory_mb" in enforced) != ("systemd-run --user --scope -p Delegate=yes" in lost)


def test_limits_that_do_not_hold_are_told_or_refused(
    sandbox: Sandbox, place: tuple[tuple[str, ...], Path], diagnosis: dict[str, Any]
) -> None:
    missing = {"memory_mb", "vcpu", "pids"} - set(diagnosis["namespace"]["capabilities"]["limits"])
    assert set(sandbox.get_info().limits_not_enforced) == set(sandbox.get_usage().limits_not_enforced) == missing
    if not missing:
        pytest.skip("this user can enforce every limit: there is nothing to refuse")
    program, data_dir = place
    command = [*program, "run", "print(1)", "--template", "base", "--data-dir", str(data_dir)]

    def run(*options: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*command, *options], capture_output=True, timeout=60, cwd="/", env=clean_environment(), check=False
        )

    loud, asked = run(), run("--limit", "memory_mb=256")
    assert (loud.returncode, loud.stdout) == (0, b"1\n")
    assert b"does not enforce memory_mb" in loud.stderr
    assert run("--quiet").stderr == b""
    assert asked.returncode == 1
    assert b"cannot enforce memory_mb" in asked.stderr


def test_without_dev_no_sandbox_is_started_whose_limits_do_not_hold(
    place: tuple[tuple[str, ...], Path], diagnosis: dict[str, Any], sandbox: Sandbox, own_data_dir: Path
) -> None:
    missing = {"memory_mb", "vcpu"} - set(diagnosis["namespace"]["capabilities"]["limits"])
    if not missing:
        pytest.skip("this user can enforce every limit: there is nothing to refuse")
    if os.geteuid() == 0:
        os.chown(own_data_dir, USER, USER)

    class UsersServer(RunningServer):
        program = place[0]

    server = UsersServer.start(own_data_dir, "--pool-size", "0")
    try:
        made = subprocess.run(
            [*place[0], "keys", "create", "k", "--quiet", "--data-dir", str(own_data_dir)],
            capture_output=True, text=True, timeout=60, cwd="/", env=clean_environment(), check=True,
        )  # fmt: skip
        with pytest.raises(CoveError) as caught:
            Sandbox.create("base", base_url=server.url, api_key=made.stdout.strip())
    finally:
        server.stop()
    assert caught.value.code == "LIMIT_NOT_ENFORCEABLE"
    assert set(caught.value.details["limits"]) == missing
    assert f"--allow-unenforced {','.join(sorted(missing))}" in caught.value.remedy
