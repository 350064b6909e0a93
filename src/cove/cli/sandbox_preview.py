"""`cove sandboxes preview`: links to programs in sandboxes that listen on a port."""

import re
from typing import Annotated

import typer

from cove.cli import output
from cove.cli.sandboxes import ApiKey, AsJson, BaseUrl, SandboxId

_LIFETIME = re.compile(r"([0-9]{1,7})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600}

Access = Annotated[
    str | None,
    typer.Option(
        "--preview-access",
        metavar="WHO",
        help="Who may reach programs inside: public (whoever knows the id) or token (with a link).",
        show_default=False,
    ),
]


def preview(
    sandbox_id: SandboxId,
    port: Annotated[
        int | None,
        typer.Argument(
            metavar="[PORT]", help="That a program in the sandbox listens on.", min=1, max=65535, show_default=False
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option(help="How long the link works: 90s, 30m, 1h, 7d at most; a bare number is seconds.")
    ] = "1h",
    access: Annotated[
        str | None,
        typer.Option(
            metavar="WHO",
            help="Change who may reach programs inside: public (whoever knows the id) or token (with a link).",
            show_default=False,
        ),
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="End all links that were made before.")] = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Print a link to a program in a sandbox, for whoever shall see it; or change who may see it without one.

    Examples:

        cove sandboxes preview ID 3000 --expires 1d

        cove sandboxes preview ID --access token --revoke
    """
    from cove.sdk import ControlPlane

    if port is None and access is None and not revoke:
        raise typer.BadParameter("give a PORT to link to, --access or --revoke")
    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        seconds = _seconds(expires)
        changed = control.set_preview_access(sandbox_id, access) if access is not None else None
        if revoke:
            changed = control.revoke_preview_links(sandbox_id)
        link = control.preview_link(sandbox_id, port, expires_in=seconds) if port is not None else None
    if as_json:
        output.print_json(link or changed or {})
        return
    if changed is not None:
        typer.echo(f"preview access: {changed.access}{'; earlier links are revoked' if revoke else ''}", err=True)
    if link is not None:
        typer.echo(output.plain(link.url))
        ends = "; it needs none, as previews of this sandbox are public" if link.access == "public" else ""
        typer.echo(f"This link works for {output.duration(seconds)}{ends}.", err=True)


def _seconds(text: str) -> int:
    from cove.models.errors import error

    found = _LIFETIME.fullmatch(text)
    if found is None:
        raise error(
            "INVALID_REQUEST", f"{text[:40]!r} is not a lifetime.", remedy="Give a number and s, m, h or d: 12h."
        )
    return int(found[1]) * _UNITS[found[2]]
