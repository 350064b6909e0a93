"""`cove secrets`: what a server keeps for sandboxes to use without seeing it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cove.cli import output
from cove.cli.sandboxes import ApiKey, AsJson, BaseUrl
from cove.cli.secret_options import read_value

if TYPE_CHECKING:
    from cove.models.secrets import VaultSecretAnswer

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Of the secret, for example openai.")]


@app.callback()
def secrets() -> None:
    """Keep, list and delete secrets of a server's namespace."""


@app.command("set")
def set_secret(
    name: Name,
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="HOST",
            help="To which it may go, e.g. api.example.com, *.example.com:8443; may be repeated. Needed at first.",
            show_default=False,
        ),
    ] = None,
    places: Annotated[
        list[str] | None,
        typer.Option(
            "--place",
            help="Where in a request: headers, query, body; may be repeated [default: headers, or as before].",
            show_default=False,
        ),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option("--from-file", metavar="FILE", help="Read the value from a file.", show_default=False),
    ] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Keep a secret, or change it: sandboxes that use it have the new value at once.

    The value is read from stdin, from a file, or asked for. Examples:

        cove secrets set openai --host api.openai.com < key.txt

        cove secrets set openai
    """
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json):
        value = read_value(from_file, prompt=f"Value of {name}")
        with ControlPlane(base_url=base_url, api_key=api_key) as control:
            kept = control.vault.set(name, value, hosts=hosts or None, places=places or None)
    _print(kept, "is kept", as_json=as_json)


@app.command("list")
def list_secrets(base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the secrets, never their values."""
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        found = control.vault.list()
    if as_json:
        output.print_json(found)
    elif found:
        rows = [
            (one.name, " ".join(one.hosts), " ".join(one.places), f"{output.since(one.updated_at)} ago", one.sandboxes)
            for one in found
        ]
        output.print_table(("NAME", "HOSTS", "PLACES", "CHANGED", "SANDBOXES"), rows)
    else:
        typer.echo("No secrets; `cove secrets set NAME --host HOST` keeps one.", err=True)


@app.command("rm")
def remove(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Withdraw it from sandboxes that use it, at once.")] = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Delete a secret."""
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        gone = control.vault.delete(name, force=force)
    _print(gone, "is deleted", as_json=as_json)


def _print(answer: "VaultSecretAnswer", what: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
        return
    used = f"; sandboxes that use it: {answer.sandboxes}" if answer.sandboxes else ""
    later = f", of which {answer.behind} will have the change when their host answers" if answer.behind else ""
    typer.echo(
        output.plain(f"The secret {answer.name!r} {what}, for {', '.join(answer.hosts)}{used}{later}."), err=True
    )
