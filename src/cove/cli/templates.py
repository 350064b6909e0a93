"""`cove templates`: what sandboxes can be created from.

`list` asks a running server. Commands that work on this machine's own files, such as `build`, live in modules of their
own and are added to `app`.
"""

import typer

from cove.cli import output
from cove.cli.sandboxes import ApiKey, AsJson, BaseUrl

app = typer.Typer(no_args_is_help=True)


@app.callback()
def templates() -> None:
    """List and build templates."""


@app.command("list")
def list_templates(base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the templates that a server offers."""
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        found = control.templates()
    if as_json:
        output.print_json(found)
    elif found:
        rows = [(template.name, template.id, template.status, template.description or "") for template in found]
        output.print_table(("NAME", "ID", "STATUS", "DESCRIPTION"), rows)
    else:
        typer.echo("No templates; `cove templates build code-interpreter` makes one.", err=True)
