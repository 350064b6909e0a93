"""Failures of methods whose results have no place for them: they become errors of the protocol."""

from typing import Any, Final

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from cove.mcp.failures import failure_fields, failure_text
from cove.models.errors import CoveError, PlatformFailure

_RESOURCE_NOT_FOUND: Final = -32002
"""Up to revision 2025-11-25 (server/resources, Error Handling); later ones say INVALID_PARAMS."""


def resource_not_found(uri: str, protocol_version: str, why: str = "") -> MCPError:
    """There is nothing at `uri`, as the revision that the client speaks says it."""
    handshaken = protocol_version in HANDSHAKE_PROTOCOL_VERSIONS
    code = _RESOURCE_NOT_FOUND if handshaken else INVALID_PARAMS
    return MCPError(code, f"Resource not found. {why}".strip(), {"uri": uri})


def protocol_error(failure: CoveError, **more: Any) -> MCPError:
    """Any other failure; `more` goes into the error's data."""
    code = INTERNAL_ERROR if isinstance(failure, PlatformFailure) else INVALID_PARAMS
    return MCPError(code, failure_text(failure), {**more, **failure_fields(failure)})
