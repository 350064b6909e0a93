"""`cove mcp`: what an assistant starts, and the commands that tell an assistant about it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cove.cli import mcp_clients
from cove.cli.locations import DataDir
from cove.cli.mcp_stdio import TOOLSETS, Options, run
from cove.models.errors import error

app = typer.Typer(invoke_without_command=True)
app.command("config")(mcp_clients.config)
app.command("install")(mcp_clients.install)


@app.callback()
def mcp(
    context: typer.Context,
    toolset: Annotated[str, typer.Option(help=f"Which tools: {', '.join(TOOLSETS)}.")] = "all",
    server: Annotated[
        str | None,
        typer.Option(
            help="URL of a server; the key is taken from COVE_API_KEY. Absent: COVE_BASE_URL, else this machine's own.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Serve an AI assistant over standard input and output (Model Context Protocol).

    Without a server's URL none is needed: one is started, shared with other assistants, and ended after the last.
    """
    if context.invoked_subcommand is not None:
        return
    if toolset not in TOOLSETS:
        raise error(
            "INVALID_REQUEST", f"There is no toolset {toolset!r}.", remedy=f"Give one of {', '.join(TOOLSETS)}."
        )
    sys.exit(run(Options(toolset=toolset, server=server, data_dir=Path(data_dir) if data_dir else None)))
