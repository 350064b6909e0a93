"""resources/list, resources/templates/list and resources/read, over both eras."""

import base64
import json
from collections.abc import AsyncGenerator

import pytest
from mcp import Client, MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, BlobResourceContents, TextResourceContents
from tests.e2e.running_server import RunningServer
from tests.mcp.conftest import Connect

from cove.mcp.addresses import file_uri
from cove.mcp.one_caller import OneCaller
from cove.mcp.resources import MAX_BYTES, MAX_ENTRIES
from cove.mcp.server import build_server
from cove.sdk import AsyncControlPlane, AsyncSandbox

pytestmark = pytest.mark.anyio

NOT_FOUND = {"legacy": -32002, "auto": INVALID_PARAMS}
"""The error code of each era."""


@pytest.fixture
async def box(mcp_server: RunningServer) -> AsyncGenerator[AsyncSandbox]:
    async with await AsyncSandbox.create("base", base_url=mcp_server.url, timeout_seconds=120) as sandbox:
        yield sandbox


async def _text(client: Client, uri: str) -> tuple[str, str | None]:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert content.uri == uri
    return content.text, content.mime_type


async def test_what_is_listed(connect: Connect, box: AsyncSandbox) -> None:
    async with connect() as client:
        listed = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates
        workspace = file_uri(box.sandbox_id, "/workspace")
        uris = [resource.uri for resource in listed]
        assert uris[0] == "cove://guide"
        assert {"cove://templates/base", "cove://templates/code-interpreter", workspace} <= set(uris)
        assert all(resource.title and resource.description and resource.mime_type for resource in listed)
        assert [one.uri_template for one in templates] == ["cove://{sandbox}/{+path}", "cove://templates/{name}"]
        for uri in uris:
            assert (await client.read_resource(uri)).contents, uri


async def test_documents(connect: Connect) -> None:
    async with connect() as client:
        guide, kind = await _text(client, "cove://guide")
        assert "execute_code_isolated" in guide
        assert kind == "text/markdown"
        document, _ = await _text(client, "cove://templates/code-interpreter")
    for part in ("`code-interpreter`", "python", "javascript", "pandas", "MiB"):
        assert part in document


async def test_files_as_text_and_as_bytes(connect: Connect, box: AsyncSandbox) -> None:
    await box.files.write("/workspace/a b%.csv", "x;ü\n")
    await box.files.write("/workspace/page.ts", "let a = 1")
    await box.files.write_bytes("/workspace/raw.bin", b"\xff\x00\xfe")
    async with connect() as client:
        assert await _text(client, file_uri(box.sandbox_id, "/workspace/a b%.csv")) == ("x;ü\n", "text/csv")
        assert await _text(client, f"cove://{box.sandbox_id}/workspace%2Fpage.ts") == ("let a = 1", "text/plain")
        (content,) = (await client.read_resource(file_uri(box.sandbox_id, "/workspace/raw.bin"))).contents
    assert isinstance(content, BlobResourceContents)
    assert base64.b64decode(content.blob) == b"\xff\x00\xfe"
    assert content.mime_type == "application/octet-stream"


async def test_directories_lead_to_what_they_hold(connect: Connect, box: AsyncSandbox) -> None:
    await box.files.write("/workspace/d/an ä?.txt", "here")
    await box.commands.run(
        f"mkdir /workspace/many; cd /workspace/many; seq {MAX_ENTRIES + 1} | xargs touch; mkdir ../e"
    )
    async with connect() as client:
        listing = json.loads((await _text(client, f"cove://{box.sandbox_id}/workspace"))[0])
        entries = {entry["name"]: entry for entry in listing["entries"]}
        assert entries["d"]["directory"] is True
        inner = json.loads((await _text(client, entries["d"]["uri"]))[0])
        assert (await _text(client, inner["entries"][0]["uri"]))[0] == "here"
        assert json.loads((await _text(client, entries["e"]["uri"]))[0])["entries"] == []
        many = json.loads((await _text(client, entries["many"]["uri"]))[0])
    assert len(many["entries"]) == MAX_ENTRIES
    assert many["truncated"] is True
    assert "file_list" in many["note"]


async def test_a_file_that_is_too_large_names_the_tool_for_it(connect: Connect, box: AsyncSandbox) -> None:
    await box.files.write("/workspace/fits", "x" * MAX_BYTES)
    await box.files.write("/workspace/large", "x" * (MAX_BYTES + 1))
    async with connect() as client:
        assert len((await _text(client, file_uri(box.sandbox_id, "/workspace/fits")))[0]) == MAX_BYTES
        with pytest.raises(MCPError, match=r"1048577 bytes.*file_read") as refused:
            await client.read_resource(file_uri(box.sandbox_id, "/workspace/large"))
        with pytest.raises(MCPError, match="regular file is needed"):
            await client.read_resource(file_uri(box.sandbox_id, "/dev/zero"))
    assert refused.value.code == INVALID_PARAMS


@pytest.mark.parametrize("mode", list(NOT_FOUND))
async def test_what_is_not_there(connect: Connect, box: AsyncSandbox, mode: str) -> None:
    uris = (
        f"cove://{box.sandbox_id}/workspace/none",
        f"cove://{box.sandbox_id}/workspace/%ff",
        f"cove://{box.sandbox_id}/../../etc/shadow-of-the-host",
        "cove://1700000000aaaaaaaa/workspace/x",
        "cove://templates/none",
        "cove://elsewhere/x",
        "file:///etc/passwd",
        "",
    )
    async with connect(mode=mode) as client:
        for uri in uris:
            with pytest.raises(MCPError) as missing:
                await client.read_resource(uri)
            assert missing.value.code == NOT_FOUND[mode], uri
            assert missing.value.data == {"uri": uri}


async def test_a_path_never_leaves_the_sandbox(connect: Connect, box: AsyncSandbox) -> None:
    """`..` above the root is the root (path_resolution(7)), and the root is the sandbox's."""
    inside = (await box.commands.run("cat /etc/passwd")).stdout
    async with connect() as client:
        assert (await _text(client, f"cove://{box.sandbox_id}/../../../etc/passwd"))[0] == inside
        await box.commands.run("touch /workspace/closed; chmod 0 /workspace/closed")
        with pytest.raises(MCPError, match="Permission denied"):
            await client.read_resource(f"cove://{box.sandbox_id}/workspace/closed")


async def test_an_ended_sandbox_is_not_found(connect: Connect, box: AsyncSandbox) -> None:
    await box.files.write("/workspace/a", "1")
    uri = file_uri(box.sandbox_id, "/workspace/a")
    async with connect() as client:
        assert (await _text(client, uri))[0] == "1"
        await box.kill()
        with pytest.raises(MCPError):
            await client.read_resource(uri)
        with pytest.raises(MCPError) as missing:
            await client.read_resource(uri)
        assert missing.value.code == INVALID_PARAMS
        assert uri not in [one.uri for one in (await client.list_resources()).resources]


async def test_without_a_server_the_guide_is_still_there() -> None:
    nowhere = AsyncControlPlane(base_url="http://127.0.0.1:1")
    async with nowhere, Client(build_server(OneCaller(nowhere))) as client:
        assert [one.uri for one in (await client.list_resources()).resources] == ["cove://guide"]
        with pytest.raises(MCPError, match="NETWORK_ERROR") as failed:
            await client.read_resource("cove://templates/base")
    assert failed.value.code == INTERNAL_ERROR
