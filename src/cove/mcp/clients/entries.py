"""The entry of a server in a client's file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cove.mcp.clients.programs import Program
from cove.mcp.clients.table import KEY_INPUT, KEY_VARIABLE, Client

Entry = dict[str, Any]

DEFAULT_URL: Final = "http://127.0.0.1:5555"
ENDPOINT: Final = "/mcp"
PLACEHOLDER: Final = "PASTE-YOUR-KEY-HERE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asks for.

    Attributes:
        server: address of a Cove server; None means that the program serves from this machine by itself.
        http: the client connects to the server by itself, without a program of ours.
        key: to be written in the clear; None means the client's own way to keep it out of the file.
        keyless: the server asks for no key.
        toolset: a choice of tools; None is the server's default.
        variables: environment of the program.
    """

    program: Program
    name: str = "cove"
    server: str | None = None
    http: bool = False
    key: str | None = field(default=None, repr=False)
    keyless: bool = False
    toolset: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What goes into a client's file.

    Attributes:
        entry: the server's, below `Client.servers` and `name`.
        inputs: what the client shall ask the user for, with `id`.
        lacks_key: the key is a placeholder, since the client has no way of its own and none was given.
        carried: the client's file knows no addresses, so that `cove mcp` carries the calls.
    """

    name: str
    entry: Entry
    inputs: tuple[Mapping[str, Any], ...] = ()
    lacks_key: bool = False
    carried: bool = False


def addition(client: Client, wanted: Wanted) -> Addition:
    """What `wanted` becomes in the file of `client`."""
    direct = wanted.http and client.url_field is not None
    server = wanted.server or (DEFAULT_URL if wanted.http else None)
    keyed = server is not None and not wanted.keyless
    entry = _remote(client, wanted, str(server)) if direct else _started(client, wanted, server)
    return Addition(
        name=wanted.name,
        entry=entry,
        inputs=(_INPUT,) if keyed and client.asks_for_key and wanted.key is None else (),
        lacks_key=keyed and wanted.key is None and not (client.key_reference or client.names_variables),
        carried=wanted.http and not direct,
    )


_INPUT: Final[Mapping[str, Any]] = {
    "type": "promptString",
    "id": KEY_INPUT,
    "description": "API key of the Cove server",
    "password": True,
}


def _started(client: Client, wanted: Wanted, server: str | None) -> Entry:
    """An entry for a program that speaks over its standard streams."""
    arguments = [*wanted.program.arguments, "mcp"]
    arguments += ["--toolset", wanted.toolset] if wanted.toolset else []
    arguments += ["--server", server] if server else []
    entry: Entry = {"type": client.stdio_type} if client.stdio_type else {}
    entry |= {"command": wanted.program.command, "args": arguments}
    variables = dict(wanted.variables)
    if server and not wanted.keyless:
        if client.names_variables and wanted.key is None:
            entry["env_vars"] = [KEY_VARIABLE]
        else:
            variables[KEY_VARIABLE] = wanted.key or client.key_reference or PLACEHOLDER
    return {**entry, "env": variables} if variables else entry


def _remote(client: Client, wanted: Wanted, server: str) -> Entry:
    """An entry for a server that the client connects to."""
    entry: Entry = {"type": client.http_type} if client.http_type else {}
    entry[str(client.url_field)] = f"{server}{ENDPOINT}" + (f"?toolset={wanted.toolset}" if wanted.toolset else "")
    if wanted.keyless:
        return entry
    if client.names_variables:
        secret: Entry = {"bearer_token_env_var": KEY_VARIABLE}
        return entry | (secret if wanted.key is None else {"http_headers": _bearer(wanted.key)})
    return entry | {"headers": _bearer(wanted.key or client.key_reference or PLACEHOLDER)}


def _bearer(key: str) -> Entry:
    return {"Authorization": f"Bearer {key}"}
