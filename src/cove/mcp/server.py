"""The MCP server: methods of the protocol, answered from the tables of tools, prompts and resources."""

from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

from cove.mcp import identity
from cove.mcp.callers import Callers
from cove.mcp.calling import call_tool, failed, find_tool
from cove.mcp.listing import listed
from cove.mcp.tool import Call
from cove.mcp.toolsets import Toolset, tools_of
from cove.models.errors import CoveError

_LIST_SECONDS = 3600
Context = ServerRequestContext[Any, Any]


def build_server(callers: Callers, *, toolset: Toolset = Toolset.ALL) -> Server[Any]:
    """A server of the official library, for stdio or HTTP, that acts on behalf of whom `callers` finds."""
    methods = _Methods(callers, toolset)
    return Server(
        identity.NAME,
        version=identity.VERSION_SHOWN,
        title=identity.TITLE,
        description=identity.DESCRIPTION,
        instructions=identity.INSTRUCTIONS,
        cache_hints={"tools/list": CacheHint(ttl_ms=_LIST_SECONDS * 1000, scope="private")},
        on_list_tools=methods.list_tools,
        on_call_tool=methods.call_tool,
    )


class _Methods:
    def __init__(self, callers: Callers, toolset: Toolset) -> None:
        self._callers = callers
        self._tools = tools_of(toolset)
        self._listed = {name: listed(tool) for name, tool in self._tools.items()}

    async def list_tools(self, context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        """All tools that the caller's key allows, in one page."""
        scopes = self._callers.scopes(context.request)
        return ListToolsResult(
            tools=[shown for name, shown in self._listed.items() if self._tools[name].scope in scopes]
        )

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        """Run a tool. A client that cancels or goes away cancels this task, and with it the program in the sandbox."""
        tool = find_tool(self._tools, params.name)
        try:
            async with self._callers.of(context.request) as caller:
                call = Call(caller, context.session.report_progress)
                return await call_tool(tool, params.arguments or {}, call)
        except CoveError as failure:
            return failed(failure)
