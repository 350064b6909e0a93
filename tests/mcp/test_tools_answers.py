"""Every tool once against a real server: the documented fields are there, and the answer matches the listed schemas."""

import json
from typing import Any

import jsonschema_rs
import pytest
from mcp import Client
from mcp_types import CallToolResult
from tests.e2e.running_server import RunningServer
from tests.mcp.battery import answer_of, fields_of, text_of
from tests.mcp.conftest import Connect

from cove import Sandbox
from cove.mcp.toolsets import Toolset
from cove.sdk import AsyncControlPlane

pytestmark = pytest.mark.anyio

PROGRAM_FIELDS = {"stdout", "stderr", "exit_code", "execution_time", "success", "sandbox_id"}
SANDBOX_FIELDS = {
    *("sandbox_id", "id", "status", "template_id", "template_name", "organization_id", "direct_url", "resources"),
    *("internet_access", "timeout_seconds", "expires_at", "created_at", "isolation"),
}
METRICS_FIELDS = {"uptime_seconds", "total_executions", "active_executions", "system", "process", "cache"}
CALLS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("health", {}, {"status"}),
    ("list_templates", {}, {"data", "count", "_fields", "_note"}),
    ("get_template", {"name": "code-interpreter"}, {"id", "name", "display_name", "features", "status"}),
    ("execute_code_isolated", {"code": "print(1)", "template_name": "base"}, {*PROGRAM_FIELDS, "_note"}),
    ("execute_code", {"code": "print(1)"}, {*PROGRAM_FIELDS, "mode", "_note"}),
    ("execute_code", {"code": "x = 1", "mode": "persistent", "sandbox_id": "ID"}, {*PROGRAM_FIELDS, "mode"}),
    ("execute_code", {"code": "1", "mode": "rich", "sandbox_id": "ID"}, {*PROGRAM_FIELDS, "mode", "rich_outputs"}),
    (
        "execute_code",
        {"code": "print(1)", "mode": "background", "sandbox_id": "ID", "name": "n", "timeout": 600},
        {"process_id", "execution_id", "status", "message", "name", "mode", "sandbox_id"},
    ),
    ("execute_code_persistent", {"sandbox_id": "ID", "code": "x"}, PROGRAM_FIELDS),
    ("execute_code_rich", {"sandbox_id": "ID", "code": "1"}, {*PROGRAM_FIELDS, "rich_outputs"}),
    ("execute_code_background", {"sandbox_id": "ID", "code": "1"}, {"process_id", "status", "message"}),
    ("run_command", {"sandbox_id": "ID", "command": "pwd"}, {"stdout", "stderr", "exit_code"}),
    ("run_command_background", {"sandbox_id": "ID", "command": "true"}, {"process_id", "status", "message"}),
    ("execute_list_processes", {"sandbox_id": "ID"}, {"processes", "count", "truncated", "total_processes"}),
    ("list_processes", {"sandbox_id": "ID"}, {"processes", "count", "truncated", "total_processes"}),
    ("file_write", {"sandbox_id": "ID", "path": "/workspace/a.txt", "content": "ä"}, {"path", "size"}),
    ("file_read", {"sandbox_id": "ID", "path": "/workspace/a.txt"}, {"path", "content", "encoding", "size"}),
    ("file_list", {"sandbox_id": "ID"}, {"path", "files", "count", "truncated", "total_files"}),
    ("file_mkdir", {"sandbox_id": "ID", "path": "/workspace/d/e"}, {"status", "path"}),
    ("file_exists", {"sandbox_id": "ID", "path": "/workspace/d/e"}, {"path", "exists"}),
    ("file_remove", {"sandbox_id": "ID", "path": "/workspace/d"}, {"status", "path"}),
    ("env_set", {"sandbox_id": "ID", "env_vars": {"A": "1"}}, {"status", "message", "variables_set", "merge_mode"}),
    ("env_get", {"sandbox_id": "ID"}, {"env_vars"}),
    ("env_clear", {"sandbox_id": "ID"}, {"status"}),
    ("get_system_metrics", {"sandbox_id": "ID"}, METRICS_FIELDS),
    ("ping_vm", {"sandbox_id": "ID"}, {"status", "agent_version", "agent", "features", "uptime"}),
    ("get_vm_info", {"sandbox_id": "ID"}, {"vm_id", "agent", "version", "os", "endpoints", "features", "uptime"}),
    ("cache_stats", {"sandbox_id": "ID"}, {"hits", "misses", "size"}),
    ("cache_clear", {"sandbox_id": "ID"}, {"status"}),
    ("get_preview_url", {"sandbox_id": "ID", "port": 8000}, {"preview_url", "port", "sandbox_id"}),
    ("get_agent_url", {"sandbox_id": "ID"}, {"agent_url", "sandbox_id"}),
    ("list_sandboxes", {}, {"data", "count"}),
    ("get_sandbox", {"id": "ID"}, SANDBOX_FIELDS),
    ("update_sandbox_timeout", {"id": "ID", "timeout_seconds": 900}, {"id", "timeout_seconds", "status"}),
    ("pause_sandbox", {"id": "ID"}, SANDBOX_FIELDS),
    ("resume_sandbox", {"id": "ID"}, SANDBOX_FIELDS),
]
CREATED_FIELDS = {
    *("id", "direct_url", "auth_token", "status", "expires_at", "template_id", "template_name"),
    *("created_at", "timeout_seconds", "internet_access", "isolation"),
}


class Schemas:
    """What was listed."""

    def __init__(self, inputs: dict[str, dict[str, Any]], outputs: dict[str, dict[str, Any]]) -> None:
        self._inputs = inputs
        self._outputs = outputs

    @classmethod
    async def of(cls, client: Client) -> "Schemas":
        tools = (await client.list_tools()).tools
        assert all(tool.output_schema for tool in tools)
        return cls(
            {tool.name: tool.input_schema for tool in tools}, {tool.name: tool.output_schema or {} for tool in tools}
        )

    async def call(self, client: Client, name: str, arguments: dict[str, Any], fields: set[str]) -> CallToolResult:
        jsonschema_rs.validate(self._inputs[name], arguments)
        result = await client.call_tool(name, arguments)
        assert not result.is_error, (name, text_of(result))
        structured = fields_of(result)
        jsonschema_rs.validate(self._outputs[name], structured)
        assert fields <= set(structured), (name, fields - set(structured))
        assert set(self._outputs[name]["properties"]) - OPTIONAL <= set(structured), name
        assert json.loads(text_of(result)) == structured
        return result


OPTIONAL = {
    "timed_out",
    "limit",
    "kernel_restarted",
    "_note",
    "next_offset",
    "offset",
    "left_out",
    "name",
    *PROGRAM_FIELDS,
}


async def test_answers_have_the_documented_fields_and_match_the_schemas(connect: Connect, sandbox_id: str) -> None:
    async with connect(toolset=Toolset.HOPX) as client:
        schemas = await Schemas.of(client)
        for name, arguments, fields in CALLS:
            given = {key: sandbox_id if value == "ID" else value for key, value in arguments.items()}
            result = await schemas.call(client, name, given, fields)
            in_sandbox = "sandbox_id" in given and name not in ("get_preview_url", "get_agent_url")
            if in_sandbox or "isolated" in name:
                assert (result.meta or {})["cove/isolation"] == "namespace", name


async def test_every_tool_is_called_by_these_tests(connect: Connect) -> None:
    called = {name for name, _, _ in CALLS} | {"create_sandbox", "delete_sandbox", "execute_kill_process"}
    async with connect(toolset=Toolset.HOPX) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
    assert names - called == {"execute_code_async"}, "its test needs a receiver: tests/mcp/test_tools_background.py"


async def test_create_and_delete(connect: Connect) -> None:
    async with connect() as client:
        schemas = await Schemas.of(client)
        arguments = {"template_id": "code-interpreter", "timeout_seconds": 60, "internet_access": False}
        result = await schemas.call(client, "create_sandbox", arguments, CREATED_FIELDS)
        created = result.structured_content
        assert created is not None
        gone = await schemas.call(client, "delete_sandbox", {"id": created["id"]}, {"status", "id"})
    assert gone.structured_content == {"status": "deleted", "id": created["id"]}
    assert created["status"] == "running"
    assert created["timeout_seconds"] == 60


async def test_closed_previews_are_shown_by_links(connect: Connect, mcp_server: RunningServer, sandbox_id: str) -> None:
    async with connect() as client, AsyncControlPlane(base_url=mcp_server.url) as control:
        bare = (await answer_of(client, "get_preview_url", sandbox_id=sandbox_id, port=8000))["preview_url"]
        await control.set_preview_access(sandbox_id, "token")
        try:
            found = await answer_of(client, "get_preview_url", sandbox_id=sandbox_id, port=8000)
            agent = await answer_of(client, "get_preview_url", sandbox_id=sandbox_id, port=7777)
        finally:
            await control.set_preview_access(sandbox_id, "public")
    assert set(found) == {"preview_url", "port", "sandbox_id"}
    assert found["preview_url"].startswith(f"{bare}?cove_preview_token=ey")
    assert "?" not in agent["preview_url"]


async def test_templates_are_chosen_by_name_or_id(connect: Connect) -> None:
    async with connect() as client:
        base = await answer_of(client, "get_template", name="base")
        for arguments in ({"template_name": "base"}, {"template_id": base["id"]}, {"template_id": int(base["id"])}):
            created = await answer_of(client, "create_sandbox", timeout_seconds=60, **arguments)
            await answer_of(client, "delete_sandbox", id=created["id"])
            assert created["template_name"] == "base"


async def test_fields_of_templates(connect: Connect) -> None:
    async with connect() as client:
        default = await answer_of(client, "list_templates", limit=1)
        some = await answer_of(client, "list_templates", fields=" name , id")
        everything = await answer_of(client, "list_templates", fields="all")
    assert default["count"] == len(default["data"]) == 1
    assert set(default["data"][0]) == {"id", "name", "description", "category", "language"}
    assert [set(row) for row in some["data"]] == [{"id", "name"}] * some["count"]
    assert some["_fields"] == ["name", "id"]
    assert "features" in everything["data"][0]


async def test_variables_are_merged_or_replaced(connect: Connect, sandbox_id: str) -> None:
    async with connect() as client:
        await answer_of(client, "env_set", sandbox_id=sandbox_id, env_vars={"A": "1", "B": "2"})
        await answer_of(client, "env_set", sandbox_id=sandbox_id, env_vars={"B": "3"})
        merged = await answer_of(client, "env_get", sandbox_id=sandbox_id)
        replaced = await answer_of(client, "env_set", sandbox_id=sandbox_id, env_vars={"C": "4"}, merge=False)
        after = await answer_of(client, "run_command", sandbox_id=sandbox_id, command="echo ${A-unset} $C")
        await answer_of(client, "env_clear", sandbox_id=sandbox_id)
        cleared = await answer_of(client, "env_get", sandbox_id=sandbox_id)
    assert merged == {"env_vars": {"A": "1", "B": "3"}}
    assert (replaced["variables_set"], replaced["merge_mode"]) == (1, False)
    assert after["stdout"] == "unset 4\n"
    assert cleared == {"env_vars": {}}


async def test_values_too_long_to_show_are_cut(connect: Connect, sandbox_id: str) -> None:
    async with connect() as client:
        variables = {f"V{number:02}": "x" * 9000 for number in range(20)}
        await answer_of(client, "env_set", sandbox_id=sandbox_id, env_vars=variables, merge=False)
        found = await answer_of(client, "env_get", sandbox_id=sandbox_id)
        await answer_of(client, "env_clear", sandbox_id=sandbox_id)
    assert len(json.dumps(found)) < 45_000
    assert len(found["env_vars"]) + found["left_out"] == 20
    assert "printenv" in found["env_vars"]["V00"]


async def test_a_paused_sandbox_is_resumed_by_a_call_and_not_by_a_look(connect: Connect, sandbox_id: str) -> None:
    async with connect() as client:
        assert (await answer_of(client, "pause_sandbox", id=sandbox_id))["status"] == "paused"
        assert (await answer_of(client, "get_sandbox", id=sandbox_id))["status"] == "paused"
        done = await answer_of(client, "run_command", sandbox_id=sandbox_id, command="echo back")
        assert (await answer_of(client, "get_sandbox", id=sandbox_id))["status"] == "running"
    assert done["stdout"] == "back\n"


async def test_a_paused_sandbox_is_resumed_for_whom_it_is_new(connect: Connect, sandbox_id: str) -> None:
    async with connect() as first:
        await answer_of(first, "pause_sandbox", id=sandbox_id)
    async with connect() as second:
        done = await answer_of(second, "file_exists", sandbox_id=sandbox_id, path="/workspace")
    assert done["exists"] is True


async def test_the_agents_of_two_sandboxes_are_told_apart(connect: Connect, mcp_server: RunningServer) -> None:
    with (
        Sandbox.create("base", base_url=mcp_server.url, timeout_seconds=60) as one,
        Sandbox.create("base", base_url=mcp_server.url, timeout_seconds=60) as other,
    ):
        async with connect() as client:
            await answer_of(client, "execute_code_persistent", sandbox_id=one.sandbox_id, code="x = 1")
            await answer_of(client, "execute_code_persistent", sandbox_id=other.sandbox_id, code="x = 2")
            shown = await answer_of(client, "execute_code_persistent", sandbox_id=one.sandbox_id, code="print(x)")
            found = await answer_of(client, "list_sandboxes")
    assert shown["stdout"] == "1\n"
    assert {one.sandbox_id, other.sandbox_id} <= {row["sandbox_id"] for row in found["data"]}


async def test_isolated_code_leaves_no_sandbox(connect: Connect) -> None:
    async with connect() as client:
        ran = await answer_of(client, "execute_code_isolated", code="import os; print(os.getcwd())")
        found = await answer_of(client, "list_sandboxes")
    assert ran["stdout"] == "/workspace\n"
    assert ran["sandbox_id"] not in {row["id"] for row in found["data"]}
    assert ran["_note"] == "The sandbox was destroyed."


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "print(6 * 7)"),
        ("javascript", "console.log(6 * 7)"),
        ("bash", "echo $((6 * 7))"),
        ("go", 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println(6 * 7) }\n'),
    ],
)
async def test_all_languages(connect: Connect, language: str, code: str) -> None:
    async with connect() as client:
        ran = await answer_of(client, "execute_code_isolated", code=code, language=language, timeout=120)
    assert (ran["stdout"], ran["exit_code"]) == ("42\n", 0)


async def test_a_program_that_fails_is_an_answer(connect: Connect, sandbox_id: str) -> None:
    async with connect() as client:
        raised = await answer_of(client, "execute_code_isolated", code="1 / 0")
        left = await answer_of(client, "run_command", sandbox_id=sandbox_id, command="echo oh >&2; exit 7")
        died = await answer_of(client, "execute_code_persistent", sandbox_id=sandbox_id, code="import os; os._exit(3)")
    assert raised["exit_code"] == 1
    assert "ZeroDivisionError" in raised["stderr"]
    assert (left["exit_code"], left["stderr"], left["success"]) == (7, "oh\n", False)
    assert died["kernel_restarted"] is True


async def test_a_timeout_names_the_limit_and_gives_what_was_printed(connect: Connect, sandbox_id: str) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
    async with connect() as client:
        alone = await answer_of(client, "execute_code_isolated", code=code, timeout="0.5")
        there = await answer_of(
            client, "run_command", sandbox_id=sandbox_id, command="echo begun; sleep 60", timeout=0.5
        )
    for ran in (alone, there):
        assert ran["exit_code"] == 124
        assert ran["stdout"] == "begun\n"
        assert ran["timed_out"] is True
        assert ran["limit"] == "time 0.5 s"


async def test_numbers_may_be_text_and_what_has_no_default_may_be_null(connect: Connect) -> None:
    async with connect() as client:
        ran = await answer_of(
            client,
            "execute_code_isolated",
            code="print(1)",
            timeout="30",
            env=None,
            region=None,
            max_output_chars="1000",
        )
    assert ran["stdout"] == "1\n"
