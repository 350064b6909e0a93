"""What `tools/list` shows: names, arguments and defaults as documented, small, and honest about what calls may do."""

import json
from typing import Any

import jsonschema_rs
import pytest
from mcp import Client
from tests.mcp.conftest import Connect

from cove.mcp.toolsets import Toolset

pytestmark = pytest.mark.anyio

REQUIRED = object()
ALL_BYTES = 32_000
CORE_BYTES = 6_000

RUN = {"language": "python", "timeout": 30, "env": None}
DOCUMENTED: dict[str, dict[str, Any]] = {
    "health": {},
    "list_sandboxes": {"limit": 100, "status": None, "region": None},
    "create_sandbox": {
        "template_id": None,
        "template_name": None,
        "region": None,
        "timeout_seconds": None,
        "internet_access": None,
        "env_vars": None,
    },
    "get_sandbox": {"id": REQUIRED},
    "delete_sandbox": {"id": REQUIRED},
    "update_sandbox_timeout": {"id": REQUIRED, "timeout_seconds": REQUIRED},
    "resume_sandbox": {"id": REQUIRED},
    "pause_sandbox": {"id": REQUIRED},
    "list_templates": {"limit": 10, "fields": "id,name,description,category,language"},
    "get_template": {"name": REQUIRED},
    "ping_vm": {"sandbox_id": REQUIRED},
    "get_vm_info": {"sandbox_id": REQUIRED},
    "get_preview_url": {"sandbox_id": REQUIRED, "port": REQUIRED},
    "get_agent_url": {"sandbox_id": REQUIRED},
    "execute_code": {
        "code": REQUIRED,
        "mode": None,
        "sandbox_id": None,
        **RUN,
        "working_dir": None,
        "name": None,
        "template_name": "code-interpreter",
        "region": None,
    },
    "execute_code_persistent": {"sandbox_id": REQUIRED, "code": REQUIRED, **RUN, "working_dir": None},
    "execute_code_rich": {
        "sandbox_id": REQUIRED,
        "code": REQUIRED,
        **RUN,
        "working_dir": "/tmp",
        "capture_rich": True,
    },
    "execute_code_background": {
        "sandbox_id": REQUIRED,
        "code": REQUIRED,
        **RUN,
        "timeout": 300,
        "working_dir": None,
        "name": None,
    },
    "execute_code_isolated": {"code": REQUIRED, **RUN, "template_name": "code-interpreter", "region": None},
    "execute_code_async": {"sandbox_id": REQUIRED, "code": REQUIRED, "callback_url": REQUIRED, **RUN, "timeout": 1800},
    "execute_list_processes": {"sandbox_id": REQUIRED, "max_results": 100},
    "execute_kill_process": {"sandbox_id": REQUIRED, "process_id": REQUIRED},
    "run_command": {
        "sandbox_id": REQUIRED,
        "command": REQUIRED,
        "timeout": 30,
        "working_dir": "/workspace",
        "env": None,
    },
    "run_command_background": {
        "sandbox_id": REQUIRED,
        "command": REQUIRED,
        "timeout": 300,
        "working_dir": None,
        "env": None,
        "name": None,
    },
    "list_processes": {"sandbox_id": REQUIRED, "max_results": 200},
    "file_read": {"sandbox_id": REQUIRED, "path": REQUIRED},
    "file_write": {"sandbox_id": REQUIRED, "path": REQUIRED, "content": REQUIRED},
    "file_list": {"sandbox_id": REQUIRED, "path": "/workspace", "max_results": 1000},
    "file_exists": {"sandbox_id": REQUIRED, "path": REQUIRED},
    "file_remove": {"sandbox_id": REQUIRED, "path": REQUIRED},
    "file_mkdir": {"sandbox_id": REQUIRED, "path": REQUIRED},
    "get_system_metrics": {"sandbox_id": REQUIRED},
    "env_get": {"sandbox_id": REQUIRED},
    "env_set": {"sandbox_id": REQUIRED, "env_vars": REQUIRED, "merge": True},
    "env_clear": {"sandbox_id": REQUIRED},
    "cache_clear": {"sandbox_id": REQUIRED},
    "cache_stats": {"sandbox_id": REQUIRED},
}

READS = (True, False, True, False)
ADDS = (False, False, False, False)
SETS = (False, False, True, False)
"""Changes something that another call changes back, and twice is as once."""
REPLACES = (False, True, True, False)
RUNS = (False, True, False, True)
ANNOTATIONS: dict[str, tuple[bool, bool, bool, bool]] = {
    "execute_code_isolated": (False, False, False, True),
    **dict.fromkeys(
        (
            "execute_code",
            "execute_code_persistent",
            "execute_code_rich",
            "execute_code_background",
            "execute_code_async",
            "run_command",
            "run_command_background",
        ),
        RUNS,
    ),
    "create_sandbox": ADDS,
    **dict.fromkeys(("pause_sandbox", "resume_sandbox", "file_mkdir"), SETS),
    **dict.fromkeys(
        (
            "delete_sandbox",
            "execute_kill_process",
            "file_write",
            "file_remove",
            "env_set",
            "env_clear",
            "cache_clear",
        ),
        REPLACES,
    ),
    # From now on: the same call later means another moment, and a sooner one ends what runs.
    "update_sandbox_timeout": (False, True, False, False),
    **dict.fromkeys(
        (
            "health",
            "list_sandboxes",
            "get_sandbox",
            "list_templates",
            "get_template",
            "ping_vm",
            "get_vm_info",
            "get_preview_url",
            "get_agent_url",
            "execute_list_processes",
            "list_processes",
            "file_read",
            "file_list",
            "file_exists",
            "get_system_metrics",
            "env_get",
            "cache_stats",
        ),
        READS,
    ),
}


async def listed(client: Client) -> dict[str, dict[str, Any]]:
    result = await client.list_tools()
    return {tool.name: tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in result.tools}


async def test_every_documented_tool_is_there_with_its_arguments_and_defaults(connect: Connect) -> None:
    async with connect(toolset=Toolset.HOPX) as client:
        tools = await listed(client)
    assert set(tools) == set(DOCUMENTED)
    for name, arguments in DOCUMENTED.items():
        schema = tools[name]["inputSchema"]
        required = {argument for argument, default in arguments.items() if default is REQUIRED}
        assert set(schema.get("required", [])) == required, name
        for argument, default in arguments.items():
            shown = schema["properties"][argument]
            if default is not REQUIRED:
                assert shown.get("default") == default, (name, argument)


async def test_older_names_are_not_listed(connect: Connect) -> None:
    async with connect() as client:
        text = json.dumps(await listed(client))
    for word in ('"vm_url"', '"workdir"', "auth_token="):
        assert word not in text


async def test_all_four_annotations_are_right(connect: Connect) -> None:
    async with connect(toolset=Toolset.HOPX) as client:
        tools = await listed(client)
    shown = {
        name: tuple(
            tool["annotations"][hint] for hint in ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
        )
        for name, tool in tools.items()
    }
    assert shown == ANNOTATIONS


async def test_schemas_are_json_schema_of_objects(connect: Connect) -> None:
    async with connect() as client:
        tools = await listed(client)
    for name, tool in tools.items():
        for schema in (tool["inputSchema"], tool["outputSchema"]):
            assert schema["type"] == "object", name
            jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


async def test_descriptions_are_short_sentences(connect: Connect) -> None:
    async with connect() as client:
        tools = await listed(client)
    for name, tool in tools.items():
        assert 10 < len(tool["description"]) <= 200, name
        assert tool["description"].endswith("."), name
        assert tool["title"], name


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize(("toolset", "limit"), [(Toolset.ALL, ALL_BYTES), (Toolset.CORE, CORE_BYTES)])
async def test_the_list_is_small(connect: Connect, toolset: Toolset, limit: int, mode: str) -> None:
    async with connect(toolset=toolset, mode=mode) as client:
        result = await client.list_tools()
    assert result.next_cursor is None
    text = json.dumps(result.model_dump(mode="json", by_alias=True, exclude_none=True), separators=(",", ":"))
    assert len(text.encode()) <= limit


async def test_the_order_never_changes(connect: Connect) -> None:
    orders: list[list[str]] = []
    for mode in ("auto", "legacy"):
        async with connect(mode=mode) as client:
            orders.append([*await listed(client)])
    assert orders[0] == orders[1]
    assert orders[0][0] == "execute_code_isolated"


async def test_core_is_a_part_of_all(connect: Connect) -> None:
    async with connect(toolset=Toolset.CORE) as core, connect() as everything:
        all_tools = await listed(everything)
        for name, tool in (await listed(core)).items():
            assert all_tools[name] == tool
