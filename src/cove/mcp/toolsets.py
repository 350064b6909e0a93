"""Which tools there are, in which order, and in which sets: what is not listed costs a chat nothing."""

from collections.abc import Mapping
from enum import StrEnum

from cove.mcp.tool import AnyTool
from cove.mcp.tools import (
    hopx_background,
    hopx_commands,
    hopx_environment,
    hopx_execution,
    hopx_files,
    hopx_rich,
    hopx_sandboxes,
    hopx_templates,
    microsandbox,
)


class Toolset(StrEnum):
    """A choice of tools."""

    CORE = "core"
    HOPX = "hopx"
    MICROSANDBOX = "microsandbox"
    ALL = "all"


_HOPX: tuple[AnyTool, ...] = (
    *hopx_execution.TOOLS,
    *hopx_rich.TOOLS,
    *hopx_background.TOOLS,
    *hopx_commands.TOOLS,
    *hopx_sandboxes.TOOLS,
    *hopx_files.TOOLS,
    *hopx_environment.TOOLS,
    *hopx_templates.TOOLS,
)
_MICROSANDBOX: tuple[AnyTool, ...] = microsandbox.TOOLS
_CORE = (
    "execute_code_isolated",
    "create_sandbox",
    "execute_code_persistent",
    "run_command",
    "file_read",
    "file_write",
    "delete_sandbox",
)


def tools_of(toolset: Toolset) -> Mapping[str, AnyTool]:
    """The tools of a set by their names, in the order in which they are listed, which never changes."""
    everything = {tool.name: tool for tool in (*_HOPX, *_MICROSANDBOX)}
    match toolset:
        case Toolset.CORE:
            return {name: everything[name] for name in _CORE}
        case Toolset.HOPX:
            return {tool.name: tool for tool in _HOPX}
        case Toolset.MICROSANDBOX:
            return {tool.name: tool for tool in _MICROSANDBOX}
        case Toolset.ALL:
            return everything
