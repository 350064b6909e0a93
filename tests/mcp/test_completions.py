"""completion/complete."""

from collections.abc import AsyncGenerator

import pytest
from mcp import Client, MCPError
from mcp_types import INVALID_PARAMS, Completion, PromptReference, ResourceTemplateReference
from tests.e2e.running_server import RunningServer
from tests.mcp.conftest import Connect

from cove.mcp.addresses import DOCUMENT_TEMPLATE, FILE_TEMPLATE
from cove.mcp.completions import MAX_VALUES
from cove.sdk import AsyncSandbox

pytestmark = pytest.mark.anyio

FILES = ResourceTemplateReference(uri=FILE_TEMPLATE)


@pytest.fixture
async def box(mcp_server: RunningServer) -> AsyncGenerator[AsyncSandbox]:
    async with await AsyncSandbox.create(
        "base", base_url=mcp_server.url, timeout_seconds=120, name="completed"
    ) as sandbox:
        yield sandbox


async def _complete(
    client: Client, ref: PromptReference | ResourceTemplateReference, name: str, value: str, **known: str
) -> Completion:
    return (await client.complete(ref, {"name": name, "value": value}, context_arguments=known or None)).completion


async def test_sandboxes_and_templates(connect: Connect, box: AsyncSandbox) -> None:
    async with connect() as client:
        assert box.sandbox_id in (await _complete(client, FILES, "sandbox", "")).values
        assert (await _complete(client, FILES, "sandbox", box.sandbox_id[:-1])).values == [box.sandbox_id]
        assert (await _complete(client, FILES, "sandbox", "nothing")).values == []
        documents = ResourceTemplateReference(uri=DOCUMENT_TEMPLATE)
        assert (await _complete(client, documents, "name", "code")).values == ["code-interpreter"]
        assert "base" in (await _complete(client, documents, "name", "")).values


async def test_names_and_namespaces_for_prompts(connect: Connect, box: AsyncSandbox) -> None:
    prompt = PromptReference(name="create_python_sandbox")
    async with connect() as client:
        assert (await _complete(client, prompt, "sandbox_name", "comp")).values == ["completed"]
        assert (await _complete(client, prompt, "sandbox_name", "comp", namespace="other")).values == []
        assert (await _complete(client, prompt, "namespace", "def")).values == ["default"]
        assert (await _complete(client, PromptReference(name="data_analysis"), "question", "Wh")).values == []


async def test_paths_step_by_step(connect: Connect, box: AsyncSandbox) -> None:
    await box.commands.run("mkdir /workspace/many; cd /workspace/many; seq -f x%g 150 | xargs touch")
    there = {"sandbox": box.sandbox_id}
    async with connect() as client:
        assert (await _complete(client, FILES, "path", "work", **there)).values == ["workspace/"]
        assert (await _complete(client, FILES, "path", "workspace/ma", **there)).values == ["workspace/many/"]
        found = await _complete(client, FILES, "path", "workspace/many/x", **there)
        assert len(found.values) == MAX_VALUES
        assert (found.total, found.has_more) == (150, True)
        assert (await _complete(client, FILES, "path", "workspace/many/x149", **there)).values == [
            "workspace/many/x149"
        ]
        assert (await _complete(client, FILES, "path", "workspace/none/x", **there)).values == []
        assert (await _complete(client, FILES, "path", "workspace/x")).values == []
        assert (await _complete(client, FILES, "path", "tmp/x", sandbox="1700000000aaaaaaaa")).values == []


async def test_what_does_not_exist_is_refused(connect: Connect) -> None:
    async with connect() as client:
        for ref in (PromptReference(name="nope"), ResourceTemplateReference(uri="cove://{nope}")):
            with pytest.raises(MCPError) as refused:
                await _complete(client, ref, "x", "")
            assert refused.value.code == INVALID_PARAMS
        assert (await _complete(client, FILES, "nope", "")).values == []
