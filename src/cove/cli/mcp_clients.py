"""`cove mcp config`, `cove mcp install`: telling an assistant about Cove."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cove.cli import output
from cove.cli.locations import DataDir
from cove.mcp.clients.entries import DEFAULT_URL, PLACEHOLDER, Addition, Wanted, addition
from cove.mcp.clients.table import CLIENTS, KEY_VARIABLE, Client, ClientName
from cove.models.errors import error

if TYPE_CHECKING:
    from cove.mcp.clients.installing import Change

_MAX_KEY = 4096
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

app = typer.Typer(no_args_is_help=True)

ClientOption = Annotated[ClientName, typer.Option("--client", help="The assistant.")]
Http = Annotated[
    bool, typer.Option("--http", help="The assistant connects to a server by itself; absent: it starts `cove mcp`.")
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help=f"The server [with --http: {DEFAULT_URL}; else none is needed: sandboxes run on this machine].",
        show_default=False,
    ),
]
ToolsetOption = Annotated[
    str | None, typer.Option("--toolset", help="core, hopx, microsandbox or all.", metavar="NAME", show_default=False)
]
Uvx = Annotated[bool, typer.Option("--uvx", help="Start Cove by uvx instead of by the path of this installation.")]
EntryName = Annotated[str, typer.Option("--name", help="What the assistant calls the server.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="Write this API key in the clear (`-`: read it from stdin); absent: the assistant's own way to keep it.",
        show_default=False,
    ),
]
NoKey = Annotated[bool, typer.Option("--no-key", help="The server asks for no key (`cove serve --dev`).")]


@app.callback()
def mcp_clients() -> None:
    """Tell an assistant about Cove."""


@app.command("config")
def config(
    client: ClientOption,
    http: Http = False,
    url: Url = None,
    toolset: ToolsetOption = None,
    uvx: Uvx = False,
    name: EntryName = "cove",
    key: Key = None,
    no_key: NoKey = False,
    link: Annotated[bool, typer.Option("--link", help="Print links that install the entry (Cursor, VS Code).")] = False,
    data_dir: DataDir = None,
) -> None:
    """Print what goes into an assistant's configuration file.

    Only the entry is printed to stdout; where it goes is said on stderr.
    """
    from cove.mcp.clients.snippets import links, snippet

    chosen = _chosen(
        client, http=http, url=url, toolset=toolset, uvx=uvx, name=name, key=key, no_key=no_key, data_dir=data_dir
    )
    if link:
        found = links(chosen.client, chosen.addition)
        if not found:
            raise error("INVALID_REQUEST", f"{chosen.client.title} has no such links.", remedy="Leave out --link.")
        typer.echo("\n".join(found))
        return
    typer.echo(snippet(chosen.client, chosen.addition), nl=False)
    _tell(chosen)
    _say_where(chosen.client)


@app.command("install")
def install(
    client: ClientOption,
    http: Http = False,
    url: Url = None,
    toolset: ToolsetOption = None,
    uvx: Uvx = False,
    name: EntryName = "cove",
    key: Key = None,
    no_key: NoKey = False,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project", metavar="DIR", help="For this project only; absent: for the user.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change and make none.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Write the entry into an assistant's configuration file.

    What is there stays: other servers, order, comments, unknown settings. A copy of the old file is kept beside it.
    """
    from cove.mcp.clients.installing import planned_change
    from cove.mcp.clients.locations import project_location, user_location

    chosen = _chosen(
        client, http=http, url=url, toolset=toolset, uvx=uvx, name=name, key=key, no_key=no_key, data_dir=data_dir
    )
    if project is not None and key is not None:
        raise error(
            "INVALID_REQUEST",
            "A project's files are shared, so no key goes into them.",
            remedy=f"Leave out --key, and set {KEY_VARIABLE} where the assistant is started.",
        )
    location = user_location(chosen.client) if project is None else project_location(chosen.client, project)
    if chosen.addition.lacks_key:
        raise error(
            "INVALID_REQUEST",
            f"{chosen.client.title} has no way to keep the key out of its file.",
            remedy="Give it with --key, or install the .mcpb bundle, which asks for it; --no-key if there is none.",
        )
    change = planned_change(chosen.client, location, chosen.addition)
    _finish(chosen, change, dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class _Chosen:
    client: Client
    wanted: Wanted
    addition: Addition


def _chosen(
    client: ClientName,
    *,
    http: bool,
    url: str | None,
    toolset: str | None,
    uvx: bool,
    name: str,
    key: str | None,
    no_key: bool,
    data_dir: Path | None,
) -> _Chosen:
    from cove.mcp.clients.addresses import server_address
    from cove.mcp.clients.programs import running_program, uvx_program

    if not _NAME.fullmatch(name):
        raise error("INVALID_REQUEST", f"{name[:100]!r} is no name of a server.", remedy="Letters, digits, - and _.")
    if toolset not in (None, "core", "hopx", "microsandbox", "all"):
        raise error(
            "INVALID_REQUEST", f"There is no set of tools {toolset[:100]!r}.", remedy="core, hopx, microsandbox, all."
        )
    row = CLIENTS[client]
    server = server_address(url, http=http and row.url_field is not None) if url is not None else None
    local = server is None and not http
    if local and (key is not None or no_key):
        raise error("INVALID_REQUEST", "A key is for a server.", remedy="Give --http or --url too, or leave it out.")
    if key is not None and no_key:
        raise error("INVALID_REQUEST", "--key and --no-key are both given.", remedy="Leave out one of them.")
    wanted = Wanted(
        program=uvx_program() if uvx else running_program(),
        name=name,
        server=server,
        http=http,
        key=None if key is None else _key(key),
        keyless=no_key,
        toolset=toolset,
        # What the shell says reaches no program that an assistant starts.
        variables={"COVE_DATA_DIR": str(data_dir.absolute())} if local and data_dir is not None else {},
    )
    return _Chosen(row, wanted, addition(row, wanted))


def _key(given: str) -> str:
    key = sys.stdin.readline(_MAX_KEY + 1).strip() if given == "-" else given
    if not key or len(key) > _MAX_KEY or not (key.isascii() and key.isprintable()) or " " in key:
        raise error("INVALID_REQUEST", "That is no API key.", remedy="Give it as `cove keys create` printed it.")
    return key


def _tell(chosen: _Chosen) -> None:
    """What the user should know about the entry."""
    from cove.mcp.clients.programs import is_passing

    client, made = chosen.client, chosen.addition
    for line in (
        f"{client.title}'s file knows no addresses: `cove mcp` carries the calls to the server."
        if made.carried
        else "",
        f"Replace {PLACEHOLDER} by the key." if made.lacks_key else "",
        f"Set {KEY_VARIABLE} to the key where {client.title} is started." if _reads_variable(chosen) else "",
        f"{client.title} asks for the key and keeps it." if made.inputs else "",
        "This `cove` is in a temporary environment of uvx: use --uvx." if is_passing(chosen.wanted.program) else "",
    ):
        if line:
            typer.echo(output.plain(line), err=True)


def _reads_variable(chosen: _Chosen) -> bool:
    client, wanted = chosen.client, chosen.wanted
    if wanted.keyless or wanted.key is not None or not (wanted.http or wanted.server):
        return False
    return client.names_variables or (client.key_reference is not None and not client.asks_for_key)


def _say_where(client: Client) -> None:
    from cove.mcp.clients.locations import user_location

    typer.echo(output.plain(f"It goes into {user_location(client).path}"), err=True)
    if client.project_file:
        typer.echo(f"or, for one project, into {client.project_file}", err=True)


def _finish(chosen: _Chosen, change: "Change", *, dry_run: bool) -> None:
    for line in change.others:
        typer.echo(output.plain(f"Note: {line}"), err=True)
    if not change.is_one:
        typer.echo(output.plain(f"{change.file.path} says all of it already; nothing was changed."), err=True)
        return
    if dry_run:
        _print_difference(change.difference(), chosen.wanted.key)
        typer.echo("Nothing was changed.", err=True)
        return
    backup = change.apply(secret=chosen.wanted.key is not None)
    typer.echo(output.plain(f"{chosen.wanted.name!r} is in {change.file.path}"), err=True)
    if backup is not None:
        typer.echo(output.plain(f"The old file is {backup}"), err=True)
    _tell(chosen)
    typer.echo(chosen.client.afterwards, err=True)


def _print_difference(text: str, key: str | None) -> None:
    for line in text.splitlines():
        hidden = line.replace(key, "***") if key else line
        typer.echo(
            "".join(mark if mark.isprintable() or mark == "\t" else "\N{REPLACEMENT CHARACTER}" for mark in hidden)
        )
