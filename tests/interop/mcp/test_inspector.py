"""The Inspector's command line, as people use it to look at a server: over HTTP, and starting `cove mcp` itself."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.running_server import COVE, RunningServer, clean_environment
from tests.interop.mcp.suite import MODULES, NODE, require_node

INSPECTOR = MODULES / ".bin" / "mcp-inspector"
SECONDS = 60.0
CALL = ("--method", "tools/call", "--tool-name", "execute_code_isolated", "--tool-arg", "code=print(6 * 7)")


def inspect(home: Path, *arguments: str) -> tuple[Any, str]:
    """What it prints, and what it complains of."""
    require_node()
    done = subprocess.run(
        [str(NODE), str(INSPECTOR), "--cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=clean_environment(HOME=str(home)),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def http(server: RunningServer) -> tuple[str, ...]:
    return f"{server.url}/mcp", "--transport", "http"


def test_over_http(http: tuple[str, ...], tmp_path: Path) -> None:
    listed, _ = inspect(tmp_path, *http, "--method", "tools/list")
    assert listed["tools"][0]["name"] == "execute_code_isolated"
    called, _ = inspect(tmp_path, *http, *CALL)
    assert called["structuredContent"]["stdout"] == "42\n"
    read, _ = inspect(tmp_path, *http, "--method", "resources/read", "--uri", "cove://templates/base")
    assert "python" in read["contents"][0]["text"]


def test_schemas_are_as_portable_as_they_can_be(http: tuple[str, ...], tmp_path: Path) -> None:
    """`--strict` ends with 6 where a schema is outside of what clients in general take."""
    _, said = inspect(tmp_path, *http, "--method", "tools/list", "--strict")
    assert " error" not in said.replace("0 errors", ""), said


def test_over_stdio(server: RunningServer, tmp_path: Path) -> None:
    command = (*COVE, "mcp", "--data-dir", str(server.data_dir))
    called, _ = inspect(tmp_path, *command, *CALL)
    assert called["structuredContent"]["stdout"] == "42\n"
