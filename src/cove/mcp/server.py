"""The MCP server: methods of the protocol, answered from the tables of tools, prompts and resources."""

from collections.abc import Mapping
from typing import Any

from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
)

from cove.mcp import identity, resources
from cove.mcp.callers import Callers
from cove.mcp.calling import call_tool, failed, find_tool
from cove.mcp.completions import complete
from cove.mcp.listing import listed
from cove.mcp.prompts import find_prompt, prompts_for
from cove.mcp.tool import Call
from cove.mcp.toolsets import Toolset, tools_of
from cove.models.errors import CoveError

_FIXED = CacheHint(ttl_ms=3_600_000, scope="private")
"""What changes only with another key or another version."""
_CHANGING = CacheHint(ttl_ms=5_000, scope="private")
_FRESH = CacheHint(ttl_ms=0, scope="private")
_CACHING: dict[CacheableMethod, CacheHint] = {
    "tools/list": _FIXED,
    "prompts/list": _FIXED,
    "resources/templates/list": _FIXED,
    "resources/list": _CHANGING,
    "resources/read": _FRESH,
}
Context = ServerRequestContext[Any, Any]


def build_server(callers: Callers, *, toolset: Toolset = Toolset.ALL) -> Server[Any]:
    """A server of the official library, for stdio or HTTP, that acts on behalf of whom `callers` finds."""
    methods = _Methods(callers, toolset)
    return Server(
        identity.NAME,
        version=identity.VERSION_SHOWN,
        title=identity.TITLE,
        description=identity.DESCRIPTION,
        instructions=identity.instructions_for(toolset),
        cache_hints=_CACHING,
        on_list_tools=methods.list_tools,
        on_call_tool=methods.call_tool,
        on_list_prompts=methods.list_prompts,
        on_get_prompt=methods.get_prompt,
        on_list_resources=methods.list_resources,
        on_list_resource_templates=methods.list_resource_templates,
        on_read_resource=methods.read_resource,
        on_completion=methods.complete,
        get_tool_input_schema=methods.input_schema,
    )


class _Methods:
    def __init__(self, callers: Callers, toolset: Toolset) -> None:
        self._callers = callers
        self._tools = tools_of(toolset)
        self._listed = {name: listed(tool) for name, tool in self._tools.items()}
        self._prompts = prompts_for(self._tools)
        self._guide = identity.instructions_for(toolset)

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """What the library checks headers against; without this it would list all tools for each call."""
        tool = self._listed.get(name)
        return None if tool is None else tool.input_schema

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
                wants_progress = bool(context.meta and context.meta.get("progress_token") is not None)
                call = Call(caller, context.session.report_progress, wants_progress)
                return await call_tool(tool, params.arguments or {}, call)
        except CoveError as failure:
            return failed(failure)

    async def list_prompts(self, context: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        """All prompts whose tools are offered, in one page."""
        return ListPromptsResult(prompts=[prompt.listed() for prompt in self._prompts.values()])

    async def get_prompt(self, context: Context, params: GetPromptRequestParams) -> GetPromptResult:
        """A prompt's text, with the arguments in it."""
        return find_prompt(self._prompts, params.name).filled(params.arguments or {})

    async def list_resources(self, context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        """The guide, templates, and running sandboxes, in one page."""
        return await resources.list_resources(lambda: self._callers.of(context.request))

    async def list_resource_templates(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        """How the addresses of resources are made."""
        return resources.RESOURCE_TEMPLATES

    async def read_resource(self, context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        """A file, a directory, a document."""
        return await resources.read_resource(
            lambda: self._callers.of(context.request),
            params.uri,
            guide=self._guide,
            protocol_version=context.protocol_version,
        )

    async def complete(self, context: Context, params: CompleteRequestParams) -> CompleteResult:
        """Values for an argument of a prompt or of a resource template."""
        return await complete(lambda: self._callers.of(context.request), self._prompts, params)
