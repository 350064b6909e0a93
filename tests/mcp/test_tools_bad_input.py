"""Calls that cannot be done: each answer names what is wrong, what would be right, and what to call next."""

import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult
from pydantic_core import from_json
from tests.e2e.running_server import RunningServer, data_directory, running_server
from tests.mcp.battery import answer_of, refusal_of, text_of
from tests.mcp.conftest import Connect

from cove.mcp.calling import call_tool
from cove.mcp.one_caller import OneCaller
from cove.mcp.server import build_server
from cove.mcp.tool import Call
from cove.mcp.toolsets import Toolset, tools_of
from cove.sdk import AsyncControlPlane

pytestmark = pytest.mark.anyio

MISSING = "1700000000aaaaaaaa"
NAN = float("nan")
RANGE = "timeout: it must be a number, more than 0 and at most 300"


@pytest.mark.parametrize("timeout", [0, -1, 301, 300.5, NAN, float("inf"), "0", "NaN", "soon", [30], {}])
@pytest.mark.parametrize("tool", ["execute_code_isolated", "run_command", "execute_code_persistent"])
async def test_timeouts_out_of_range(connect: Connect, sandbox_id: str, tool: str, timeout: Any) -> None:
    program = {"command": "ls"} if tool == "run_command" else {"code": "print(1)"}
    place = {} if tool == "execute_code_isolated" else {"sandbox_id": sandbox_id}
    async with connect() as client:
        text = await refusal_of(client, tool, timeout=timeout, **program, **place)
    assert RANGE in text
    assert text.endswith("[INVALID_REQUEST]")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0.0"])
async def test_numbers_that_json_has_not(number: bytes) -> None:
    """Python's client sends null in their place; others may send them as they are."""
    arguments = from_json(b'{"code": "print(1)", "timeout": ' + number + b"}")
    nobody = cast("Call", None)
    result = await call_tool(tools_of(Toolset.ALL)["execute_code_isolated"], arguments, nobody)
    assert result.is_error
    assert RANGE in text_of(result)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("execute_code_isolated", {}, ["code: it is required"]),
        ("execute_code_isolated", {"code": None}, ["code: ", "string"]),
        ("execute_code_isolated", {"code": "1", "language": None}, ["language: ", "string"]),
        ("execute_code_isolated", {"code": 5}, ["code: ", "string"]),
        ("execute_code_isolated", {"code": ["a"]}, ["code: ", "string"]),
        ("execute_code_isolated", {"code": "\ud800"}, ["code: ", "surrogates"]),
        ("execute_code_isolated", {"code": "1", "timeout": True}, ["timeout: it must be a number"]),
        ("execute_code_isolated", {"code": "1", "language": "ruby"}, ["language: ", "python, javascript, bash or go"]),
        ("execute_code_isolated", {"code": "1", "env": {"A=B": "1"}}, ["env: ", "'A=B' is not a name"]),
        ("execute_code_isolated", {"code": "1", "env": {"A": 1}}, ["env.A: ", "string"]),
        ("execute_code_isolated", {"code": "1", "env": "A=1"}, ["env: ", "dictionary"]),
        ("execute_code_isolated", {"code": "1", "max_output_chars": 0}, ["max_output_chars: ", "100", "200000"]),
        ("execute_code_isolated", {"code": "1", "max_output_chars": 200_001}, ["max_output_chars: ", "200000"]),
        ("execute_code_isolated", {"code": "1", "sandbox": "x"}, ["sandbox: there is no such argument", "max_output"]),
        ("execute_code_isolated", {"code": "1", "langage": "go"}, ["did you mean language?"]),
        ("execute_code_isolated", {"code": "1", "template_name": "../x"}, ["template_name: ", "list_templates"]),
        ("execute_code_isolated", {"code": "1", "template_name": "nope"}, ["'nope' was not found", "list_templates"]),
        ("execute_code", {"code": "1", "mode": "fast"}, ["mode: ", "'isolated'", "'background'"]),
        ("execute_code", {"code": "1", "mode": "persistent"}, ["sandbox_id: ", "create_sandbox"]),
        ("execute_code", {"code": "1", "timeout": 301}, ["timeout: ", "300", "background"]),
        ("run_command", {"sandbox_id": "ID", "command": " "}, ["command: it is empty"]),
        ("run_command", {"sandbox_id": "ID", "command": "a\0b"}, ["command: ", "NUL"]),
        ("run_command", {"sandbox_id": "", "command": "ls"}, ["sandbox_id: ", "create_sandbox", "list_sandboxes"]),
        ("run_command", {"sandbox_id": "../../v1/templates", "command": "ls"}, ["sandbox_id: ", "list_sandboxes"]),
        ("run_command", {"sandbox_id": f"{MISSING}\n", "command": "ls"}, ["sandbox_id: "]),
        ("run_command", {"sandbox_id": 5, "command": "ls"}, ["sandbox_id: ", "string"]),
        ("run_command", {"command": "ls"}, ["sandbox_id: it is required"]),
        ("run_command", {"vm_url": "http://example.com/", "command": "ls"}, ["vm_url", "sandbox_id"]),
        ("run_command", {"sandbox_id": MISSING, "command": "ls"}, ["was not found", "list_sandboxes"]),
        ("get_sandbox", {"id": MISSING}, ["was not found", "list_sandboxes", "create_sandbox"]),
        ("get_preview_url", {"sandbox_id": MISSING, "port": 80}, ["was not found"]),
        ("get_preview_url", {"sandbox_id": "ID", "port": 0}, ["port: ", "at least 1 and at most 65535"]),
        ("get_preview_url", {"sandbox_id": "ID", "port": 65536}, ["port: ", "65535"]),
        ("update_sandbox_timeout", {"id": "ID", "timeout_seconds": 0}, ["timeout_seconds: ", "at least 1", "2592000"]),
        ("update_sandbox_timeout", {"id": "ID", "timeout_seconds": 1.5}, ["timeout_seconds: "]),
        ("create_sandbox", {"template_name": "nope"}, ["'nope' was not found", "list_templates"]),
        ("create_sandbox", {"template_id": 99}, ["'99' was not found"]),
        ("create_sandbox", {"template_id": "a", "template_name": "b"}, ["template_id and template_name differ"]),
        ("create_sandbox", {"internet_access": "maybe"}, ["internet_access: "]),
        ("get_template", {"name": "../../health"}, ["name: ", "list_templates"]),
        ("list_templates", {"fields": "id,bogus"}, ["fields: 'bogus'", "all, id, name"]),
        ("list_templates", {"limit": 0}, ["limit: ", "at least 1"]),
        ("list_sandboxes", {"status": "asleep"}, ["status: ", "'running'"]),
        ("file_read", {"sandbox_id": "ID", "path": "/nope"}, ["/nope", "file_list"]),
        ("file_read", {"sandbox_id": "ID", "path": "/etc"}, ["/etc", "directory"]),
        ("file_read", {"sandbox_id": "ID", "path": ""}, ["path: "]),
        ("file_read", {"sandbox_id": "ID", "path": "a\0b"}, ["path: ", "NUL"]),
        ("file_read", {"sandbox_id": "ID", "path": "\udcff"}, ["path: ", "unicode"]),
        ("file_read", {"sandbox_id": "ID", "path": "/x", "offset": -1}, ["offset: ", "at least 0"]),
        ("file_read", {"sandbox_id": "ID", "path": "/x", "limit": 0}, ["limit: ", "at least 1 and at most 200000"]),
        ("file_list", {"sandbox_id": "ID", "path": "/nope"}, ["/nope", "file_list", "file_mkdir"]),
        ("file_write", {"sandbox_id": "ID", "path": "/etc/x", "content": ""}, ["/etc/x", "workspace"]),
        ("file_write", {"sandbox_id": "ID", "path": "/tmp/x", "content": 5}, ["content: ", "string"]),
        ("execute_kill_process", {"sandbox_id": "ID", "process_id": "proc_x"}, ["'proc_x'", "execute_list_processes"]),
        ("execute_kill_process", {"sandbox_id": "ID", "process_id": "../x"}, ["process_id: ", "execute_list"]),
        ("execute_list_processes", {"sandbox_id": "ID", "process_id": "proc_x"}, ["'proc_x'"]),
        ("execute_code_async", {"sandbox_id": "ID", "code": "1", "callback_url": "nowhere"}, ["callback_url"]),
        ("env_set", {"sandbox_id": "ID", "env_vars": {"": "x"}}, ["env_vars: "]),
        ("health", {"x": 1}, ["x: there is no such argument; there are: none"]),
    ],
)
async def test_refusals_name_the_argument_and_what_to_do(
    connect: Connect, sandbox_id: str, tool: str, arguments: dict[str, Any], words: list[str]
) -> None:
    given = {name: sandbox_id if value == "ID" else value for name, value in arguments.items()}
    async with connect() as client:
        text = await refusal_of(client, tool, **given)
    for word in words:
        assert word in text, text
    assert len(text) < 1000


async def test_ten_megabytes_of_code_are_refused_before_anything_is_made(
    connect: Connect, mcp_server: RunningServer
) -> None:
    log = mcp_server.log.read_text()
    async with connect(mode="legacy") as client:
        begun = time.monotonic()
        text = await refusal_of(client, "execute_code_isolated", code="#" * 10_000_000)
        assert time.monotonic() - begun < 2
    assert "code: it is 10000000 bytes; at most 4194304" in text
    assert "file_write" in text
    assert "POST /v1/sandboxes" not in mcp_server.log.read_text()[len(log) :]


async def test_refusals_do_not_repeat_what_was_sent(connect: Connect) -> None:
    async with connect() as client:
        text = await refusal_of(
            client, "execute_code_isolated", code=["secret"], env={"KEY": ["secret"]}, timeout="secret"
        )
    assert "secret" not in text
    assert text.count(";") == 2, "all three are named"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exec_code", "execute_code"),
        ("file_raed", "file_read"),
        ("", "execute_code_isolated"),
        ("x" * 5000, "There are"),
    ],
)
async def test_an_unknown_tool_is_an_error_of_the_protocol(connect: Connect, mode: str, name: str, words: str) -> None:
    async with connect(mode=mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool(name, {})
    assert caught.value.error.code == INVALID_PARAMS
    assert words in caught.value.error.message
    assert len(caught.value.error.message) < 2000


async def test_odd_names_of_files_are_names(connect: Connect, sandbox_id: str) -> None:
    names = ["a b", "ä\u0301😀", "%2e%2e", "a+b&c=d#e?f", "-rf", "'\";$(x)", "\\", "new\nline", "\x1b[31m", "a" * 255]
    async with connect() as client:
        for name in names:
            path = f"/tmp/odd/{name}"
            await answer_of(client, "file_write", sandbox_id=sandbox_id, path=path, content=name)
            found = await answer_of(client, "file_read", sandbox_id=sandbox_id, path=path)
            assert found["content"] == name
            assert (await answer_of(client, "file_exists", sandbox_id=sandbox_id, path=path))["exists"] is True
        listed = await answer_of(client, "file_list", sandbox_id=sandbox_id, path="/tmp/odd")
        assert sorted(entry["name"] for entry in listed["files"]) == sorted(names)
        await answer_of(client, "file_remove", sandbox_id=sandbox_id, path="/tmp/odd")


async def test_an_ended_sandbox_is_said_to_have_ended(connect: Connect) -> None:
    async with connect() as client:
        created = await answer_of(client, "create_sandbox", template_name="base", timeout_seconds=60)
        await answer_of(client, "run_command", sandbox_id=created["id"], command="true")
        async with connect() as other:
            await answer_of(other, "delete_sandbox", id=created["id"])
        for tool, arguments in (
            ("run_command", {"sandbox_id": created["id"], "command": "ls"}),
            ("file_read", {"sandbox_id": created["id"], "path": "/x"}),
            ("get_sandbox", {"id": created["id"]}),
            ("delete_sandbox", {"id": created["id"]}),
        ):
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert "was killed" in text_of(result)
            assert "create_sandbox" in text_of(result)
            meta = (result.meta or {})["cove/error"]
            assert meta["code"] == "SANDBOX_NOT_FOUND"
            assert meta["retryable"] is False


@pytest.fixture(scope="module")
def keyed(built_data_dir: Path) -> Iterator[RunningServer]:
    """A server that wants keys."""
    with data_directory(built_data_dir) as data_dir, running_server(data_dir) as running:
        yield running


@asynccontextmanager
async def holder_of(server: RunningServer, key: str) -> AsyncGenerator[Client]:
    async with (
        AsyncControlPlane(base_url=server.url, api_key=key) as control,
        Client(build_server(OneCaller(control))) as client,
    ):
        yield client


async def test_another_tenants_handle_is_like_a_missing_one(keyed: RunningServer) -> None:
    red, blue = (keyed.new_key(name, "--namespace", name) for name in ("red", "blue"))
    async with holder_of(keyed, red) as owner, holder_of(keyed, blue) as other, holder_of(keyed, "wrong") as nobody:
        created = await answer_of(owner, "create_sandbox", template_name="base", timeout_seconds=60)
        handle = created["id"]
        own = await answer_of(owner, "run_command", sandbox_id=handle, command="echo mine")
        for tool, arguments in (
            ("run_command", {"sandbox_id": handle, "command": "ls"}),
            ("run_command", {"vm_url": created["direct_url"], "auth_token": created["auth_token"], "command": "ls"}),
            ("get_sandbox", {"id": handle}),
            ("delete_sandbox", {"id": handle}),
            ("get_preview_url", {"sandbox_id": handle, "port": 80}),
        ):
            stolen = await refusal_of(other, tool, **arguments)
            missing = await refusal_of(other, tool, **{**arguments, **_renamed(arguments)})
            assert stolen.replace(handle, "ID") == missing.replace(MISSING, "ID")
        assert (await answer_of(other, "list_sandboxes"))["data"] == []
        refused = await nobody.call_tool("execute_code_isolated", {"code": "print(1)"})
        still = await answer_of(owner, "run_command", sandbox_id=handle, command="echo mine")
        await answer_of(owner, "delete_sandbox", id=handle)
    assert own["stdout"] == still["stdout"] == "mine\n"
    assert refused.is_error
    assert "COVE_API_KEY" in text_of(refused)
    assert fields_of_error(refused)["code"] in ("AUTHENTICATION_REQUIRED", "UNAUTHORIZED")


def _renamed(arguments: Mapping[str, Any]) -> dict[str, str]:
    if "vm_url" in arguments:
        return {"vm_url": MISSING}
    return {"id": MISSING} if "id" in arguments else {"sandbox_id": MISSING}


def fields_of_error(result: CallToolResult) -> dict[str, Any]:
    return cast("dict[str, Any]", (result.meta or {})["cove/error"])


async def test_a_key_that_only_reads_runs_nothing(keyed: RunningServer) -> None:
    key = keyed.new_key("reader", "--scope", "read")
    async with holder_of(keyed, key) as client:
        listed = await answer_of(client, "list_sandboxes")
        refused = await client.call_tool("execute_code_isolated", {"code": "print(1)"})
    assert listed["count"] == 0
    assert fields_of_error(refused)["code"] == "FORBIDDEN"
    assert "exec" in text_of(refused)


async def test_without_a_server_the_answer_says_so(connect: Connect) -> None:
    async with (
        AsyncControlPlane(base_url="http://127.0.0.1:1") as control,
        Client(build_server(OneCaller(control))) as client,
    ):
        result = await client.call_tool("execute_code_isolated", {"code": "print(1)"})
    assert result.is_error
    assert fields_of_error(result)["code"] == "NETWORK_ERROR"
    assert "cove serve" in text_of(result)
