"""The answer to a client's first message, from plain data, while the library that would give it is being loaded.

Only what is beyond doubt is answered here; everything else waits for the library. Both answers are the same, which a
test checks for every revision of the protocol.
"""

import json
from typing import Any, Final, cast

from cove.mcp import identity

HANDSHAKE_REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Those that begin with `initialize`."""
STATELESS_REVISIONS: Final = ("2026-07-28",)
"""Those that begin with any request, `server/discover` as a rule."""

MAX_BYTES: Final = 64 * 1024

_CAPABILITIES: Final = identity.CAPABILITIES
_META: Final = "io.modelcontextprotocol/"
_VERSION_KEY: Final = _META + "protocolVersion"
_CAPABILITIES_KEY: Final = _META + "clientCapabilities"
_CLIENT_KEY: Final = _META + "clientInfo"
_FLAGS: Final = frozenset({"listChanged", "subscribe"})


def greeting_for(line: bytes, *, toolset: str = "all") -> bytes | None:
    """The answer to the first message, a line of JSON; None to leave it to the library."""
    message = _request(line)
    if message is None:
        return None
    result: dict[str, Any] | None = None
    if message["method"] == "initialize":
        result = _initialized(message["params"], identity.instructions_for(toolset))
    elif message["method"] == "server/discover":
        result = _discovered(message["params"], identity.instructions_for(toolset))
    if result is None:
        return None
    answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


def _request(line: bytes) -> dict[str, Any] | None:
    if len(line) > MAX_BYTES:
        return None
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    fields = cast("dict[str, Any]", message)
    if fields.keys() != {"jsonrpc", "id", "method", "params"} or fields["jsonrpc"] != "2.0":
        return None
    plain_id = type(fields["id"]) is int or (isinstance(fields["id"], str) and fields["id"].isprintable())
    return fields if plain_id and isinstance(fields["params"], dict) else None


def _initialized(params: dict[str, Any], instructions: str) -> dict[str, Any] | None:
    """`initialize`, up to revision 2025-11-25."""
    if params.keys() != {"protocolVersion", "capabilities", "clientInfo"}:
        return None
    revision = params["protocolVersion"]
    if revision not in HANDSHAKE_REVISIONS:
        return None
    if not _are_capabilities(params["capabilities"]) or not _is_client(params["clientInfo"]):
        return None
    return {
        "capabilities": _CAPABILITIES,
        "instructions": instructions,
        "protocolVersion": revision,
        "serverInfo": _server_info(),
    }


def _discovered(params: dict[str, Any], instructions: str) -> dict[str, Any] | None:
    """`server/discover`, from revision 2026-07-28 on."""
    meta = params.get("_meta")
    if params.keys() != {"_meta"} or not isinstance(meta, dict):
        return None
    envelope = cast("dict[str, Any]", meta)
    if envelope.keys() - {_CLIENT_KEY} != {_VERSION_KEY, _CAPABILITIES_KEY}:
        return None
    if envelope[_VERSION_KEY] not in STATELESS_REVISIONS or not _are_capabilities(envelope[_CAPABILITIES_KEY]):
        return None
    if _CLIENT_KEY in envelope and not _is_client(envelope[_CLIENT_KEY]):
        return None
    return {
        "cacheScope": "private",
        "capabilities": _CAPABILITIES,
        "instructions": instructions,
        "resultType": "complete",
        "supportedVersions": list(STATELESS_REVISIONS),
        "ttlMs": 0,
        "_meta": {_META + "serverInfo": _server_info()},
    }


def _server_info() -> dict[str, str]:
    return {
        "name": identity.NAME,
        "title": identity.TITLE,
        "version": identity.VERSION_SHOWN,
        "description": identity.DESCRIPTION,
    }


def _are_capabilities(value: object) -> bool:
    """Objects in objects, as far as they go: of any other shape the library has to judge."""
    if not isinstance(value, dict):
        return False
    fields = cast("dict[str, Any]", value)
    return all(
        isinstance(inner, bool) if name in _FLAGS else _are_capabilities(inner) for name, inner in fields.items()
    )


def _is_client(value: object) -> bool:
    """Name and version, and other texts."""
    if not isinstance(value, dict):
        return False
    fields = cast("dict[str, Any]", value)
    return fields.keys() >= {"name", "version"} and all(isinstance(text, str) for text in fields.values())
