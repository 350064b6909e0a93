"""Calls of tools in tests: the answer, or the refusal, and what the page of the vendor shows of each tool."""

import json
from typing import Any, cast

from mcp import Client
from mcp_types import CallToolResult, TextContent


async def answer_of(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """The structured content of a call that must not fail; its text says the same."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    assert json.loads(text_of(result)) == result.structured_content
    return fields_of(result)


def fields_of(result: CallToolResult) -> dict[str, Any]:
    """The structured content, which is an object."""
    fields: object = result.structured_content
    assert isinstance(fields, dict)
    return cast("dict[str, Any]", fields)


async def refusal_of(client: Client, tool: str, /, **arguments: Any) -> str:
    """The text of a call that must fail as a tool does."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, text_of(result)
    return text_of(result)


def text_of(result: CallToolResult) -> str:
    """The first block."""
    block = result.content[0]
    assert isinstance(block, TextContent)
    return block.text
