"""What becomes of an entry that is there already: what Cove sets is set anew, what the user added stays."""

from collections.abc import Mapping
from typing import Any, Final, cast

from cove.mcp.clients.entries import Entry
from cove.mcp.clients.programs import DISTRIBUTION
from cove.mcp.clients.table import KEY_VARIABLE
from cove.models.errors import error

_OURS: Final = frozenset(
    {"type", "command", "args", "url", "serverUrl", "headers", "http_headers", "bearer_token_env_var", "env_vars"}
)
_OUR_VARIABLES: Final = frozenset({KEY_VARIABLE, "COVE_BASE_URL", "COVE_DATA_DIR"})


def merged(old: object, new: Entry, *, name: str) -> Entry:
    """The entry to write where `old` stands.

    Raises:
        CoveError: the entry belongs to another program.
    """
    if old is None:
        return new
    there = _mapping(old)
    if not _is_ours(there):
        raise error(
            "CONFLICT",
            f"There is a server {name!r} already, and it is not Cove's.",
            remedy="Choose another name with --name.",
        )
    env = {key: value for key, value in _mapping(there.get("env")).items() if key not in _OUR_VARIABLES}
    env |= new.get("env", {})
    rest = {key: value for key, value in there.items() if key not in _OURS and key != "env"}
    result = {**new, **rest, **({"env": env} if env else {})}
    # As it stood, so that an entry that says the same is the same text.
    return {key: result[key] for key in [*there, *result] if key in result}


def _is_ours(entry: Mapping[str, Any]) -> bool:
    if "command" not in entry:
        return any(url.endswith("/mcp") for url in _urls(entry))
    words = [str(entry["command"]), *(str(word) for word in _list(entry.get("args")))]
    program = words[0].replace("\\", "/").rpartition("/")[2].removesuffix(".exe")
    return program in ("cove", DISTRIBUTION) or DISTRIBUTION in words or "cove.cli.main" in words


def _urls(entry: Mapping[str, Any]) -> list[str]:
    """Addresses in an entry, without what asks for a set of tools."""
    return [str(entry.get(field, "")).partition("?")[0].rstrip("/") for field in ("url", "serverUrl")]


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


_OTHERS: Final[Mapping[str, str]] = {"hopx-mcp": "hopx-mcp", "microsandbox-mcp": "microsandbox's MCP server"}
_MICROSANDBOX_URLS: Final = ("http://127.0.0.1:5555/mcp", "http://localhost:5555/mcp")


def other_servers(servers: object, *, except_for: str) -> list[str]:
    """A line for each server whose tools have the same names as Cove's. Nothing is done to them."""
    return [
        f"{name!r} runs {program} and stays as it is. Its tools have the names of Cove's: switch one of the two off."
        for name, entry in _mapping(servers).items()
        if name != except_for
        for program in _program_of(_mapping(entry))
    ]


def _program_of(entry: Mapping[str, Any]) -> list[str]:
    words = {str(word).partition("@")[0].partition("==")[0] for word in _list(entry.get("args"))}
    words.add(str(entry.get("command", "")).replace("\\", "/").rpartition("/")[2])
    found = [title for program, title in _OTHERS.items() if program in words]
    if any(url in _MICROSANDBOX_URLS for url in _urls(entry)):
        found.append("whatever serves on port 5555 (microsandbox, or Cove)")
    return found
