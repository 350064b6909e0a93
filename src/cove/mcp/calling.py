"""One tool call, from the arguments that came to the answer that goes."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

import structlog
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, ImageContent, TextContent
from pydantic import ValidationError

from cove.mcp.failures import arguments_text, failure_fields, failure_text
from cove.mcp.schemas import schema_of
from cove.mcp.tool import Answer, AnyTool, Call, plain
from cove.models.errors import CoveError, error

_META = "cove/"
_MAX_CHARACTERS = 4_000_000
"""Of an answer as JSON; every tool has bounds of its own, far below."""
_log = structlog.get_logger("cove.mcp")


def find_tool(tools: Mapping[str, AnyTool], name: str) -> AnyTool:
    """The tool of this name.

    Raises:
        MCPError: INVALID_PARAMS, as the protocol says for unknown tools; names the nearest one.
    """
    tool = tools.get(name)
    if tool is not None:
        return tool
    near = difflib.get_close_matches(name, tools, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(tools)}."
    raise MCPError(INVALID_PARAMS, f"Unknown tool: {name[:100]!r}.{hint}")


async def call_tool(tool: AnyTool, arguments: Mapping[str, Any], call: Call) -> CallToolResult:
    """Check, run, and put whatever comes of it into words. Only cancellation leaves as an exception."""
    try:
        checked = tool.arguments.model_validate(arguments)
    except ValidationError as problem:
        return refused(arguments_text(tool.name, problem, schema_of(tool.arguments)["properties"]))
    if tool.scope not in call.caller.scopes:
        return failed(error("FORBIDDEN", f"{tool.name} needs a key with the scope {tool.scope}."))
    try:
        return result_of(await tool.run(call, checked))
    except CoveError as failure:
        return failed(failure)
    except Exception:
        _log.exception("tool_failed", tool=tool.name)
        return failed(error("INTERNAL_ERROR", f"{tool.name} failed; the log says why."))


def result_of(answer: Answer) -> CallToolResult:
    """The answer on the wire: structured, and the same as JSON text for clients that know no other."""
    structured, text = _sendable(plain(answer.structured))
    if len(text) > _MAX_CHARACTERS:
        return failed(error("BAD_RESPONSE", f"The answer has {len(text)} characters; ask for less."))
    images = [ImageContent(data=image.data, mime_type=image.mime_type) for image in answer.images]
    return CallToolResult(
        content=[TextContent(text=text if answer.text is None else answer.text), *images],
        structured_content=structured,
        is_error=answer.is_error,
        _meta={_META + name: value for name, value in answer.meta.items()} or None,
    )


def failed(failure: CoveError) -> CallToolResult:
    """A refusal or failure of the platform."""
    return CallToolResult(
        content=[TextContent(text=failure_text(failure))],
        is_error=True,
        _meta={_META + "error": failure_fields(failure)},
    )


def refused(text: str) -> CallToolResult:
    """A call that was not made."""
    return CallToolResult(content=[TextContent(text=text)], is_error=True)


def _sendable(structured: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What JSON and UTF-8 can carry: a lone surrogate becomes a question mark."""
    text = json.dumps(structured, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode(errors="replace").decode()
        return json.loads(text), text
    return structured, text
