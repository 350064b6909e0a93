"""Tools as `tools/list` shows them."""

from mcp_types import Tool as ListedTool
from mcp_types import ToolAnnotations

from cove.mcp.schemas import schema_of
from cove.mcp.tool import AnyTool


def listed(tool: AnyTool) -> ListedTool:
    """The tool with its schemas and all four annotations."""
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=schema_of(tool.arguments),
        output_schema=None if tool.result is None else schema_of(tool.result, described=False, mode="serialization"),
        annotations=ToolAnnotations(
            read_only_hint=tool.effect.read_only,
            destructive_hint=tool.effect.destructive,
            idempotent_hint=tool.idempotent,
            open_world_hint=tool.open_world,
        ),
    )
