"""Calls that an access token does not allow: refused as HTTP has it, so that the client gets a token that does
(RFC 6750 §3.1, 2025-11-25 basic/authorization "Scope Challenge Handling"). Keys get the same answer from the tool, in
words for the model: nobody but a person can give them another."""

import json
from typing import Any, cast

from cove.core.principal import Principal
from cove.mcp.toolsets import Toolset, tools_of
from cove.models.errors import error
from cove.models.scopes import ALL_SCOPES
from cove.server.mcp.resource_server import ACTOR_PREFIX


def check_call(principal: Principal, body: bytes) -> None:
    """Look at the request's body, where it matters.

    Raises:
        CoveError: FORBIDDEN, with the missing `scope`.
    """
    if principal.scopes == ALL_SCOPES or not principal.actor.startswith(ACTOR_PREFIX):
        return
    tool = tools_of(Toolset.ALL).get(_called(body))
    if tool is None or tool.scope in principal.scopes:
        return
    raise error("FORBIDDEN", f"{tool.name} needs an access token with the scope {tool.scope}.", scope=str(tool.scope))


def _called(body: bytes) -> str:
    """Name of the tool that is called; empty for every other request, which is not decided here."""
    try:
        message: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(message, dict) or cast("dict[str, Any]", message).get("method") != "tools/call":
        return ""
    params: Any = cast("dict[str, Any]", message).get("params")
    name: Any = cast("dict[str, Any]", params).get("name") if isinstance(params, dict) else None
    return name if isinstance(name, str) else ""
