"""Requests of the protocol as they look on the wire, for tests that must send what no client of good manners would."""

from collections.abc import Mapping
from typing import Any

import httpx2

STATELESS = "2026-07-28"
OLDER = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
BOTH = "application/json, text/event-stream"
_META = "io.modelcontextprotocol/"


def request(method: str, params: Mapping[str, Any] | None = None, *, number: int | str = 1) -> dict[str, Any]:
    """One of the older revisions."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params or {})}


def stateless(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    version: str = STATELESS,
    accept: str = BOTH,
    more: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Keyword arguments of `httpx2.AsyncClient.post` for a request of the stateless revision."""
    meta: dict[str, Any] = {_META + "protocolVersion": version, _META + "clientCapabilities": {}}
    headers = {"Accept": accept, "MCP-Protocol-Version": version, "Mcp-Method": method}
    params = dict(params or {})
    if method == "tools/call":
        headers["Mcp-Name"] = params["name"]
    return {"json": request(method, {**params, "_meta": meta}), "headers": {**headers, **(more or {})}}


def tool_call(name: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """The same for a call of a tool."""
    return stateless("tools/call", {"name": name, "arguments": dict(arguments or {})}, **options)


def initialize(version: str = OLDER[0]) -> dict[str, Any]:
    """The first request of the older revisions."""
    client = {"name": "test", "version": "1"}
    return request("initialize", {"protocolVersion": version, "capabilities": {}, "clientInfo": client}, number=0)


async def open_session(
    client: httpx2.AsyncClient, version: str = OLDER[0], *, accept: str = BOTH, path: str = "/mcp"
) -> dict[str, str]:
    """Shake hands; answers the headers of further requests of the session."""
    opened = await client.post(path, json=initialize(version), headers={"Accept": accept})
    assert opened.status_code == 200, opened.text
    assert message_of(opened)["result"]["protocolVersion"] == version
    headers = {"Accept": accept, "Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": version}
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await client.post(path, json=note, headers=headers)).status_code == 202
    return headers


def message_of(answer: httpx2.Response) -> dict[str, Any]:
    """The message of an answer: of plain JSON, or the last of a stream."""
    if answer.headers["content-type"].startswith("application/json"):
        return answer.json()
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    return httpx2.Response(200, content=lines[-1].removeprefix("data: ")).json()


def names_of(answer: httpx2.Response) -> list[str]:
    """Of the tools in an answer to `tools/list`."""
    return [tool["name"] for tool in message_of(answer)["result"]["tools"]]
