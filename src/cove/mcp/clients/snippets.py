"""An entry as text: to paste, to pass on the command line, or as a link that installs it."""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from cove.mcp.clients.entries import Addition
from cove.mcp.clients.table import Client, ClientName, Language


def snippet(client: Client, addition: Addition) -> str:
    """The part of the client's file that holds the entry, complete by itself."""
    if client.language is Language.TOML:
        from cove.mcp.clients.toml_edit import with_server

        return with_server("", client.servers, addition.name, addition.entry)
    whole: dict[str, Any] = {client.servers: {addition.name: addition.entry}}
    if addition.inputs:
        whole = {"inputs": list(addition.inputs), **whole}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def links(client: Client, addition: Addition) -> tuple[str, ...]:
    """Links that install the entry: one that opens the client, one for pages that show only https links.

    Empty for clients that have none.
    """
    if client.name is ClientName.CURSOR:
        entry = b64encode(_compact(addition.entry).encode()).decode()
        query = f"name={quote(addition.name, safe='')}&config={quote(entry, safe='')}"
        return f"cursor://anysphere.cursor-deeplink/mcp/install?{query}", f"https://cursor.com/en/install-mcp?{query}"
    if client.name is ClientName.VSCODE:
        link = f"vscode:mcp/install?{quote(vscode_argument(addition), safe='')}"
        return link, f"https://insiders.vscode.dev/redirect?url={quote(link, safe='')}"
    return ()


def vscode_argument(addition: Addition) -> str:
    """What VS Code takes as one JSON object: in a link, and after `code --add-mcp`."""
    inputs: dict[str, Any] = {"inputs": list(addition.inputs)} if addition.inputs else {}
    return _compact({"name": addition.name, **inputs, **addition.entry})


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
