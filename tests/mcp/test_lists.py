"""What all lists have in common, and what a model is told before it calls anything."""

import json
import re
from typing import Any

import pytest
from mcp import Client
from mcp_types import CacheableResult
from tests.mcp.conftest import Connect

from cove.mcp.identity import CAPABILITIES, instructions_for
from cove.mcp.toolsets import Toolset, tools_of

pytestmark = pytest.mark.anyio

MODES = ("legacy", "auto")


async def _lists(client: Client) -> list[CacheableResult]:
    return [
        await client.list_tools(),
        await client.list_prompts(),
        await client.list_resource_templates(),
        await client.list_resources(),
    ]


def _as_json(results: list[CacheableResult]) -> str:
    return json.dumps([result.model_dump(mode="json", by_alias=True, exclude_none=True) for result in results])


@pytest.mark.parametrize("mode", MODES)
async def test_lists_come_in_one_page_and_in_the_same_order(connect: Connect, mode: str) -> None:
    async with connect(mode=mode) as client, connect(mode=mode) as other:
        first = await _lists(client)
        assert _as_json(first) == _as_json(await _lists(client)) == _as_json(await _lists(other))
        assert "nextCursor" not in _as_json(first)


async def test_lists_say_how_long_they_hold_and_for_whom(connect: Connect) -> None:
    async with connect() as client:
        lists = await _lists(client)
        guide = await client.read_resource("cove://guide")
    assert [result.ttl_ms for result in lists] == [3_600_000, 3_600_000, 3_600_000, 5_000]
    assert guide.ttl_ms == 0
    assert {result.cache_scope for result in (*lists, guide)} == {"private"}


@pytest.mark.parametrize("mode", MODES)
async def test_what_the_server_says_of_itself(connect: Connect, mode: str) -> None:
    async with connect(mode=mode, toolset=Toolset.CORE) as client:
        assert client.server_info
        assert client.server_info.name == "cove"
        assert client.server_info.title
        assert client.instructions == instructions_for(Toolset.CORE)
        capabilities = client.server_capabilities.model_dump(by_alias=True, exclude_none=True)
    assert capabilities == CAPABILITIES


@pytest.mark.parametrize("toolset", list(Toolset))
def test_instructions_are_short_and_speak_of_tools_that_are_there(toolset: Toolset) -> None:
    text = instructions_for(toolset)
    assert len(text) < 1500
    words = set(re.findall(r"\w+", text))
    spoken_of = words & tools_of(Toolset.ALL).keys()
    assert spoken_of
    assert spoken_of <= tools_of(toolset).keys()
    unknown = {word for word in words if "_" in word} - tools_of(Toolset.ALL).keys()
    assert unknown <= _argument_names(toolset)


def _argument_names(toolset: Toolset) -> set[str]:
    shapes: list[dict[str, Any]] = []
    for tool in tools_of(toolset).values():
        shapes.append(tool.arguments.model_json_schema(mode="validation"))
        if tool.result is not None:
            shapes.append(tool.result.model_json_schema(mode="serialization"))
    return {name for shape in shapes for name in shape.get("properties", {})}
