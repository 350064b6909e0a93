"""The part that imports the `mcp` library: one server for each set of tools, and what speaks HTTP for it.

Import this in a thread.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from cove.mcp.callers import Callers
from cove.mcp.server import build_server
from cove.mcp.toolsets import Toolset
from cove.server.mcp.bounds import IDLE_SECONDS, MAX_BODY_BYTES
from cove.server.mcp.step_up import check_call as check_call

Managers = Mapping[tuple[Toolset, bool], StreamableHTTPSessionManager]
"""By the set of tools, and whether answers are plain JSON."""


def build_servers(callers: Callers) -> Mapping[Toolset, Server[Any]]:
    """One for each set."""
    return {toolset: build_server(callers, toolset=toolset) for toolset in Toolset}


@asynccontextmanager
async def managing(servers: Mapping[Toolset, Server[Any]]) -> AsyncGenerator[Managers]:
    """What serves requests, for the time of the block."""
    managers = {
        (toolset, plain): StreamableHTTPSessionManager(
            server,
            json_response=plain,
            session_idle_timeout=IDLE_SECONDS,
            max_request_body_size=MAX_BODY_BYTES,
            # `McpSessions` counts them.
            max_sessions=None,
        )
        for toolset, server in servers.items()
        for plain in (False, True)
    }
    async with AsyncExitStack() as stack:
        for manager in managers.values():
            await stack.enter_async_context(manager.run())
        yield managers


def has_sessions(protocol_version: str | None) -> bool:
    """Whether a request that names this version, or none, is of a revision with handshake and sessions."""
    return protocol_version is None or protocol_version in HANDSHAKE_PROTOCOL_VERSIONS
