"""All commands, and how errors end."""

import sys
from typing import Annotated

import typer

from cove.cli import (
    audit,
    doctor,
    files,
    keys,
    mcp,
    namespaces,
    processes,
    run,
    sandbox_create,
    sandbox_net,
    sandbox_preview,
    sandbox_show,
    sandboxes,
    secrets,
    serve,
    template_build,
    templates,
    terminal,
)
from cove.models.version import VERSION

app = typer.Typer(
    name="cove",
    help="Run untrusted code in isolated sandboxes on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("run")(run.run)
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)
app.command("audit")(audit.audit)
templates.app.command("build")(template_build.build)
sandboxes.app.command("create")(sandbox_create.create)
sandboxes.app.command("show")(sandbox_show.show)
sandboxes.app.command("net")(sandbox_net.net)
sandboxes.app.command("preview")(sandbox_preview.preview)
# Options of ours go before the id; what follows the command belongs to the command.
sandboxes.app.command("exec", context_settings={"allow_interspersed_args": False})(processes.execute)
sandboxes.app.command("shell")(terminal.shell)
sandboxes.app.command("cp")(files.copy)
sandboxes.app.command("watch")(files.watch)
sandboxes.app.command("processes")(processes.list_processes)
sandboxes.app.command("logs")(processes.logs)
sandboxes.app.command("kill-process")(processes.kill_process)
app.add_typer(sandboxes.app, name="sandboxes", help="Sandboxes of a server: use, show, stop and kill them.")
app.add_typer(templates.app, name="templates", help="List and build templates.")
app.add_typer(keys.app, name="keys", help="Make, list and revoke API keys.")
app.add_typer(mcp.app, name="mcp", help="Serve an AI assistant (Model Context Protocol); set it up.")
app.add_typer(secrets.app, name="secrets", help="Keep secrets that sandboxes use without seeing them.")
app.add_typer(namespaces.app, name="namespaces", help="List namespaces and set their limits.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cove {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run untrusted code in isolated sandboxes on this machine."""


def run_command() -> None:
    """Run the command that the arguments name; end the process with its code."""
    from cove.models.errors import CoveError

    try:
        app()
    except CoveError as problem:
        from cove.cli.output import fail

        fail(problem)
    except KeyboardInterrupt:
        sys.exit(130)
