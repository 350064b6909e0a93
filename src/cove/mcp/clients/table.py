"""The clients: where each keeps its configuration, and how an entry for a server looks there."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ClientName(StrEnum):
    """A client that is known here."""

    CURSOR = "cursor"
    VSCODE = "vscode"
    CLAUDE_DESKTOP = "claude-desktop"
    CLAUDE_CODE = "claude-code"
    WINDSURF = "windsurf"
    CODEX = "codex"


class Language(StrEnum):
    """What a file is written in. `JSON` is read with comments and trailing commas, as VS Code reads it."""

    JSON = "json"
    TOML = "toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What a client wants.

    Attributes:
        user_files: by `sys.platform`; `~` is the home directory, `$NAME` a variable with the default that
            `VARIABLE_DEFAULTS` gives it.
        project_file: below the project's directory; None where the client has no such file.
        servers: key of the file's object whose members are servers.
        stdio_type, http_type: value of `type` in an entry; None where the client takes none.
        url_field: where an entry keeps the address; None where the client's file knows only programs.
        key_reference: text that the client replaces by the API key, which then stands in no file; None where it has no
            such way.
        names_variables: it is told the name of the environment variable that holds the key.
        asks_for_key: the file has `inputs`, for which the client asks and which it keeps.
        afterwards: what the user does next.
    """

    name: ClientName
    title: str
    user_files: Mapping[str, str]
    project_file: str | None = None
    language: Language = Language.JSON
    servers: str = "mcpServers"
    stdio_type: str | None = None
    http_type: str | None = None
    url_field: str | None = "url"
    key_reference: str | None = None
    names_variables: bool = False
    asks_for_key: bool = False
    afterwards: str


KEY_VARIABLE: Final = "COVE_API_KEY"
KEY_INPUT: Final = "cove-api-key"

VARIABLE_DEFAULTS: Final[Mapping[str, str]] = {
    "XDG_CONFIG_HOME": "~/.config",
    "APPDATA": "~/AppData/Roaming",
    "CODEX_HOME": "~/.codex",
    "CLAUDE_CONFIG_DIR": "~",
}

_EVERYWHERE = ("linux", "darwin", "win32")


def _everywhere(path: str) -> Mapping[str, str]:
    return dict.fromkeys(_EVERYWHERE, path)


def _application_data(path: str) -> Mapping[str, str]:
    return {
        "linux": f"$XDG_CONFIG_HOME/{path}",
        "darwin": f"~/Library/Application Support/{path}",
        "win32": f"$APPDATA/{path}",
    }


CLIENTS: Final[Mapping[ClientName, Client]] = {
    client.name: client
    for client in (
        Client(
            name=ClientName.CURSOR,
            title="Cursor",
            user_files=_everywhere("~/.cursor/mcp.json"),
            project_file=".cursor/mcp.json",
            key_reference=f"${{env:{KEY_VARIABLE}}}",
            afterwards="Open Cursor's settings, MCP: the server is listed there and can be switched on.",
        ),
        Client(
            name=ClientName.VSCODE,
            title="VS Code",
            user_files=_application_data("Code/User/mcp.json"),
            project_file=".vscode/mcp.json",
            servers="servers",
            stdio_type="stdio",
            http_type="http",
            key_reference=f"${{input:{KEY_INPUT}}}",
            asks_for_key=True,
            afterwards="Run `MCP: List Servers` in VS Code, choose the server and start it.",
        ),
        Client(
            name=ClientName.CLAUDE_DESKTOP,
            title="Claude Desktop",
            user_files=_application_data("Claude/claude_desktop_config.json"),
            url_field=None,
            afterwards="Quit Claude Desktop and start it again.",
        ),
        Client(
            name=ClientName.CLAUDE_CODE,
            title="Claude Code",
            user_files=_everywhere("$CLAUDE_CONFIG_DIR/.claude.json"),
            project_file=".mcp.json",
            stdio_type="stdio",
            http_type="http",
            key_reference=f"${{{KEY_VARIABLE}}}",
            afterwards="Start a new session of Claude Code; `/mcp` shows the server.",
        ),
        Client(
            name=ClientName.WINDSURF,
            title="Windsurf",
            user_files=_everywhere("~/.codeium/windsurf/mcp_config.json"),
            url_field="serverUrl",
            key_reference=f"${{env:{KEY_VARIABLE}}}",
            afterwards="Refresh the list of MCP servers in Windsurf's Cascade panel.",
        ),
        Client(
            name=ClientName.CODEX,
            title="Codex",
            user_files=_everywhere("$CODEX_HOME/config.toml"),
            project_file=".codex/config.toml",
            language=Language.TOML,
            servers="mcp_servers",
            names_variables=True,
            afterwards="Start a new session of Codex; `/mcp` shows the server.",
        ),
    )
}
