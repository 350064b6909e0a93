"""`hopx-mcp`, unmodified, through the recipe for clients whose host is fixed: every tool that it offers."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.interop.fixed_host import FixedHost, McpServer, require_client

Offer = dict[str, Any]


@pytest.fixture(scope="module")
def mcp(fixed_host: FixedHost) -> Iterator[McpServer]:
    require_client("hopx-mcp")
    with McpServer.started(fixed_host) as server:
        yield server


@pytest.fixture(scope="module")
def template_id(mcp: McpServer) -> str:
    return mcp.call("get_template", name="code-interpreter")["id"]


@pytest.fixture(scope="module")
def box(mcp: McpServer, template_id: str) -> Iterator[str]:
    """The id of a sandbox for all tests here."""
    created = mcp.call("create_sandbox", template_id=template_id, timeout_seconds=600, env_vars={"A": "1"})
    assert created["status"] == "running", created
    yield created["id"]
    assert mcp.call("delete_sandbox", id=created["id"]) == {"status": "deleted", "id": created["id"]}


def test_what_it_offers(mcp: McpServer) -> None:
    assert len(mcp.offer["tools"]) == 35
    assert mcp.offer["prompts"] == ["quick_code_execution"]


def test_health(mcp: McpServer) -> None:
    assert mcp.call("health")["status"] == "healthy"


def test_templates(mcp: McpServer, template_id: str) -> None:
    listed = mcp.call("list_templates")
    assert {"base", "code-interpreter"} <= {one["name"] for one in listed["data"]}
    assert mcp.call("get_template", name=template_id)["name"] == "code-interpreter"
    assert "error" in mcp.call("get_template", name="none-such")


def test_sandboxes(mcp: McpServer, box: str) -> None:
    assert box in {one["sandbox_id"] for one in mcp.call("list_sandboxes", limit=5)["data"]}
    assert mcp.call("get_sandbox", id=box)["status"] == "running"
    assert mcp.call("update_sandbox_timeout", id=box, timeout_seconds=900)["status"] == "updated"
    assert mcp.call("resume_sandbox", id=box)["sandbox_id"] == box
    assert mcp.call("get_sandbox", id="1700000000aaaaaaaa")["error"] == "Sandbox not found"


def test_code_in_a_sandbox_of_its_own(mcp: McpServer) -> None:
    done = mcp.call("execute_code_isolated", code="print(6 * 7)", timeout=20)
    assert (done["stdout"], done["exit_code"], done["success"]) == ("42\n", 0, True)
    assert mcp.call("get_sandbox", id=done["sandbox_id"])["error"] == "Sandbox not found"
    failed = mcp.call("execute_code", code="raise ValueError('no')", language="python")
    assert failed["exit_code"] == 1
    assert "ValueError" in failed["stderr"]


def test_state_persists(mcp: McpServer, box: str) -> None:
    mcp.call("execute_code_persistent", sandbox_id=box, code="x = 20")
    again = mcp.call("execute_code_persistent", sandbox_id=box, code="print(x + 1)", env={"B": "2"})
    assert again["stdout"] == "21\n"
    same = mcp.call("execute_code", code="print(x)", mode="persistent", sandbox_id=box)
    assert (same["stdout"], same["mode"]) == ("20\n", "persistent")


def test_rich_output(mcp: McpServer, box: str) -> None:
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    done = mcp.call("execute_code_rich", sandbox_id=box, code=plot)
    assert done["success"], done
    assert "image/png" in str(done["rich_outputs"])


@pytest.mark.parametrize("mode", ["isolated", "persistent", "rich"])
def test_modes(mcp: McpServer, box: str, mode: str) -> None:
    done = mcp.call("execute_code", code="print(6 * 7)", mode=mode, sandbox_id=box)
    assert (done["stdout"], done["exit_code"]) == ("42\n", 0)


def test_a_sandbox_by_the_name_of_its_template(mcp: McpServer) -> None:
    created = mcp.call("create_sandbox", template_id="base", timeout_seconds=60)
    assert (created["status"], created["template_name"]) == ("running", "base"), created
    assert mcp.call("delete_sandbox", id=created["id"])["status"] == "deleted"


def test_processes(mcp: McpServer, box: str) -> None:
    started = mcp.call("run_command_background", sandbox_id=box, command="sleep 600")
    assert started["process_id"].startswith("cmd_")
    assert started["status"] == "running"
    listed = mcp.call("execute_list_processes", sandbox_id=box)
    assert [one["status"] for one in listed["processes"] if one["process_id"] == started["process_id"]] == ["running"]
    assert mcp.call("execute_kill_process", sandbox_id=box, process_id=started["process_id"])["status"] == "killed"
    assert any(one["name"] for one in mcp.call("list_processes", sandbox_id=box)["processes"])
    assert "error" in mcp.call("execute_kill_process", sandbox_id=box, process_id="proc_none")


def test_background_code_fails_in_the_client(mcp: McpServer, box: str) -> None:
    """Its SDK has no such parameter: no server can help."""
    assert "working_dir" in mcp.call("execute_code_background", sandbox_id=box, code="1")["exception"]
    assert "working_dir" in mcp.call("execute_code", sandbox_id=box, code="1", mode="background")["exception"]


def test_commands(mcp: McpServer, box: str) -> None:
    done = mcp.call("run_command", sandbox_id=box, command="pwd; echo err >&2; exit 3")
    assert (done["stdout"], done["stderr"], done["exit_code"]) == ("/workspace\n", "err\n", 3)


def test_files(mcp: McpServer, box: str) -> None:
    assert mcp.call("file_mkdir", sandbox_id=box, path="/workspace/m")["status"] == "created"
    assert mcp.call("file_write", sandbox_id=box, path="/workspace/m/a.txt", content="hello")["size"] == 5
    assert mcp.call("file_read", sandbox_id=box, path="/workspace/m/a.txt")["content"] == "hello"
    assert [one["name"] for one in mcp.call("file_list", sandbox_id=box, path="/workspace/m")["files"]] == ["a.txt"]
    assert mcp.call("file_exists", sandbox_id=box, path="/workspace/m/a.txt")["exists"] is True
    assert mcp.call("file_remove", sandbox_id=box, path="/workspace/m")["status"] == "removed"
    assert mcp.call("file_exists", sandbox_id=box, path="/workspace/m")["exists"] is False
    assert mcp.call("file_read", sandbox_id=box, path="/workspace/none")["error"] == "File not found"


def test_environment(mcp: McpServer, box: str) -> None:
    assert mcp.call("env_get", sandbox_id=box)["env_vars"]["A"] == "1"
    mcp.call("env_set", sandbox_id=box, env_vars={"B": "2"})
    assert {"A", "B"} <= mcp.call("env_get", sandbox_id=box)["env_vars"].keys()
    mcp.call("env_set", sandbox_id=box, env_vars={"C": "3"}, merge=False)
    assert mcp.call("env_get", sandbox_id=box)["env_vars"] == {"C": "3"}
    assert mcp.call("env_clear", sandbox_id=box)["status"] == "cleared"
    assert mcp.call("env_get", sandbox_id=box)["env_vars"] == {}


def test_what_the_sandbox_says(mcp: McpServer, box: str) -> None:
    assert mcp.call("ping_vm", sandbox_id=box)["status"] == "ok"
    assert mcp.call("get_vm_info", sandbox_id=box)["vm_id"] == box
    assert mcp.call("get_system_metrics", sandbox_id=box)["uptime_seconds"] > 0
    assert mcp.call("cache_clear", sandbox_id=box)["status"] == "success"
    assert "hits" in mcp.call("cache_stats", sandbox_id=box)


def test_addresses(mcp: McpServer, box: str) -> None:
    preview = mcp.call("get_preview_url", sandbox_id=box, port=3000)
    assert preview["preview_url"].startswith(f"https://3000-{box}."), preview
    assert mcp.call("get_agent_url", sandbox_id=box)["agent_url"].startswith(f"https://7777-{box}.")


def test_a_paused_sandbox_is_resumed_by_its_next_use(mcp: McpServer, box: str, fixed_host: FixedHost) -> None:
    assert fixed_host.hopx_api("POST", f"/v1/sandboxes/{box}/pause")["status"] == "paused"
    assert mcp.call("execute_code_persistent", sandbox_id=box, code="print(1)")["stdout"] == "1\n"
