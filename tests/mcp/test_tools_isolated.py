"""execute_code_isolated: the tool that most chats need."""

from typing import Any

import pytest
from mcp_types import CallToolResult, TextContent
from tests.mcp.conftest import Connect

pytestmark = pytest.mark.anyio


def _structured(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def test_it_returns_what_the_program_printed(connect: Connect) -> None:
    async with connect() as client:
        result = await client.call_tool("execute_code_isolated", {"code": "print(6 * 7)"})
    answer = _structured(result)
    assert answer["stdout"] == "42\n"
    assert answer["exit_code"] == 0
    assert isinstance(result.content[0], TextContent)


async def test_a_wrong_argument_is_an_answer_that_names_it(connect: Connect) -> None:
    async with connect() as client:
        result = await client.call_tool("execute_code_isolated", {"code": "print(1)", "timeout": 301})
    assert result.is_error
    text = result.content[0]
    assert isinstance(text, TextContent)
    assert "timeout" in text.text
