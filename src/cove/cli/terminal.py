"""`cove sandboxes shell`: a terminal in a sandbox."""

import sys
from typing import Annotated

import typer

from cove.cli import output
from cove.cli.sandboxes import ApiKey, BaseUrl, SandboxId


def shell(
    sandbox_id: SandboxId,
    command: Annotated[
        str | None, typer.Option("--command", "-c", help="Shell text to run instead.", show_default=False)
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(help="new: a shell that outlives the connection; an id: go on with such a one."),
    ] = None,
    terminal: Annotated[bool, typer.Option("--tty", "-t", help="Open a terminal though stdin is none.")] = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Open a shell in a sandbox, and end with its exit code.

    Where stdin is no terminal, what comes from it is run as a script of Bash:

        echo 'ls | wc -l' | cove sandboxes shell ID
    """
    from cove.cli.interactive import run_script, run_terminal

    with output.reporting(as_json=False):
        if sys.stdin.isatty() or terminal or session is not None:
            code = run_terminal(sandbox_id, session=session, command=command, base_url=base_url, api_key=api_key)
        else:
            code = run_script(sandbox_id, command=command, base_url=base_url, api_key=api_key)
    sys.exit(code & 0xFF)
