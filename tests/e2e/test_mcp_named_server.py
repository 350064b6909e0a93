"""`cove mcp` with a server that was named: its key, its errors, and the variables of other products."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.assistant import Assistant
from tests.e2e.running_server import RunningServer, run_cove

from cove.sdk import Sandbox

Connect = Callable[..., Assistant]


@pytest.fixture(scope="module")
def key(keyed_server: RunningServer) -> str:
    made = run_cove("keys", "create", "assistant", "--quiet", "--data-dir", str(keyed_server.data_dir))
    assert made.returncode == 0, made.stderr
    return made.stdout.decode().strip()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """Start `cove mcp` with these options and variables, and shake hands."""
    started: list[Assistant] = []

    def start(*options: str, **variables: str) -> Assistant:
        # A home of its own: nothing may be made there.
        assistant = Assistant.start(tmp_path / "log", *options, COVE_DATA_DIR=str(tmp_path / "data"), **variables)
        started.append(assistant)
        assistant.greet()
        return assistant

    yield start
    for assistant in started:
        assistant.close()
    assert not (tmp_path / "data").exists(), "a local server was begun"


@pytest.mark.parametrize(
    ("url", "secret"),
    [("COVE_BASE_URL", "COVE_API_KEY"), ("HOPX_BASE_URL", "HOPX_API_KEY"), ("MSB_SERVER_URL", "MSB_API_KEY")],
)
def test_variables_name_the_server(
    keyed_server: RunningServer, key: str, connect: Connect, url: str, secret: str
) -> None:
    assistant = connect(**{url: keyed_server.url, secret: key})
    assert assistant.call("execute_code_isolated", code="print('there')")["stdout"] == "there\n"


def test_sandboxes_outlive_the_assistant(keyed_server: RunningServer, key: str, connect: Connect) -> None:
    assistant = connect(
        "--server", keyed_server.url, "--toolset", "all", COVE_API_KEY=key, COVE_BASE_URL="http://no.example"
    )
    sandbox_id = assistant.call("create_sandbox", timeout_seconds=300)["id"]
    assert assistant.leave() == 0
    with Sandbox.connect(sandbox_id, base_url=keyed_server.url, api_key=key) as sandbox:
        assert sandbox.run_code("print(1)").stdout == "1\n"


def test_a_missing_or_wrong_key_is_told_at_the_call(keyed_server: RunningServer, connect: Connect) -> None:
    missing = connect(COVE_BASE_URL=keyed_server.url).refused("execute_code_isolated", code="1")
    assert "AUTHENTICATION_REQUIRED" in missing
    assert "cove keys create" in missing
    for wrong in ("hopx_live_aaaaaaaaaaaa.bbbb", "with a space"):
        told = connect(COVE_BASE_URL=keyed_server.url, COVE_API_KEY=wrong).refused("execute_code_isolated", code="1")
        assert "AUTHENTICATION_REQUIRED" in told or "API key" in told


def test_a_server_that_is_not_there_is_told_at_the_call(connect: Connect) -> None:
    assistant = connect("--server=http://127.0.0.1:9")
    assert "NETWORK_ERROR" in assistant.refused("execute_code_isolated", code="1")
    assert "INVALID_REQUEST" in connect("--server", "ftp://x").refused("execute_code_isolated", code="1")
    assert len(assistant.request("tools/list", {})["result"]["tools"]) > 10
