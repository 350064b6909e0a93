"""What belongs to one tenant is nowhere to be found for another: resources, completion, over `/mcp` with keys."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import INVALID_PARAMS, ResourceTemplateReference
from tests.e2e.running_server import RunningServer, run_cove

from cove.mcp.addresses import FILE_TEMPLATE, file_uri
from cove.sdk import AsyncSandbox

pytestmark = pytest.mark.anyio


def _key(server: RunningServer, namespace: str, *options: str) -> str:
    made = run_cove(
        *("keys", "create", f"mcp-{namespace}", "--namespace", namespace, "--quiet"),
        *("--data-dir", str(server.data_dir), *options),
    )
    assert made.returncode == 0, made.stderr.decode()
    return made.stdout.decode().strip()


@asynccontextmanager
async def _connected(server: RunningServer, key: str) -> AsyncGenerator[Client]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client,
    ):
        yield client


async def test_resources_and_completion_keep_to_the_caller(keyed_server: RunningServer) -> None:
    own, other = (_key(keyed_server, namespace) for namespace in ("readers", "strangers"))
    async with await AsyncSandbox.create("base", base_url=keyed_server.url, api_key=own) as box:
        await box.files.write("/workspace/mine", "secret")
        uri, workspace = file_uri(box.sandbox_id, "/workspace/mine"), file_uri(box.sandbox_id, "/workspace")
        argument = {"name": "sandbox", "value": box.sandbox_id}
        reference = ResourceTemplateReference(uri=FILE_TEMPLATE)
        async with _connected(keyed_server, own) as mine, _connected(keyed_server, other) as theirs:
            assert "secret" in str(await mine.read_resource(uri))
            assert workspace in [one.uri for one in (await mine.list_resources()).resources]
            assert (await mine.complete(reference, argument)).completion.values == [box.sandbox_id]
            with pytest.raises(MCPError) as hidden:
                await theirs.read_resource(uri)
            with pytest.raises(MCPError) as missing:
                await theirs.read_resource(uri.replace(box.sandbox_id, "1700000000aaaaaaaa"))
            assert workspace not in [one.uri for one in (await theirs.list_resources()).resources]
            assert (await theirs.complete(reference, argument)).completion.values == []
            path = {"name": "path", "value": "workspace/m"}
            known = {"sandbox": box.sandbox_id}
            assert (await theirs.complete(reference, path, context_arguments=known)).completion.values == []
    assert hidden.value.code == missing.value.code == INVALID_PARAMS
    assert hidden.value.message == missing.value.message.replace("1700000000aaaaaaaa", box.sandbox_id)
