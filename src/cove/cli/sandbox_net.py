"""`cove sandboxes net`: what a sandbox may reach on the network, and what it did there."""

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cove.cli import output
from cove.cli.network_options import Allowed, Denied, policy_asked, shown
from cove.cli.sandboxes import ApiKey, AsJson, BaseUrl, SandboxId

if TYPE_CHECKING:
    from cove.models.network import EgressEntry, NetworkReport
    from cove.sdk import ControlPlane

_POLL_SECONDS = 1.0
_COLUMNS = ("TIME", "WHAT", "WHERE", "VERDICT", "SENT", "RECEIVED", "TOOK")


def net(
    sandbox_id: SandboxId,
    allow: Allowed = None,
    deny: Denied = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="PRESET",
            help="none, public or package-registries; --allow adds to it.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it happens, until Ctrl-C.")] = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what a sandbox may reach and what it did on the network; with rules, change what it may reach.

    A change takes effect at once and replaces all that was allowed before. Examples:

        cove sandboxes net ID

        cove sandboxes net ID --allow api.example.com --allow '*.example.org:443'

        cove sandboxes net ID --preset none
    """
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        asked = policy_asked(allow, deny, preset)
        if asked is not None:
            changed = control.set_network(sandbox_id, asked)
            if not follow:
                _print_change(changed, as_json=as_json)
                return
        if follow:
            _follow(control, sandbox_id, as_json=as_json)
        report = control.network(sandbox_id)
    if as_json:
        output.print_json(report)
    else:
        _print(report)


def _print_change(report: "NetworkReport", *, as_json: bool) -> None:
    if as_json:
        output.print_json({"policy": report.policy})
    else:
        typer.echo(output.plain(f"reachable: {shown(report.policy)}"))


def _follow(control: "ControlPlane", sandbox_id: str, *, as_json: bool) -> None:
    """Entry by entry; ends with Ctrl-C, or with the sandbox."""
    after = 0
    while True:
        for entry in control.network(sandbox_id, after=after).entries:
            after = max(after, entry.sequence)
            line = json.dumps(entry.model_dump(mode="json")) if as_json else "  ".join(filter(None, _row(entry)))
            typer.echo(output.plain(line))
        time.sleep(_POLL_SECONDS)


def _print(report: "NetworkReport") -> None:
    output.print_fields({"reachable": shown(report.policy)})
    if report.entries:
        output.print_table(_COLUMNS, [_row(entry) for entry in report.entries])
    if report.forgotten:
        typer.echo(f"{report.forgotten} earlier entries are not kept any more.", err=True)
    totals = report.totals
    output.print_fields(
        {
            "connections": f"{totals.connections} ({totals.open_connections} open)",
            "look-ups": totals.lookups,
            "refused": totals.refused,
            "sent": _bytes(totals.sent_bytes),
            "received": _bytes(totals.received_bytes),
        }
    )


def _row(entry: "EgressEntry") -> tuple[str, ...]:
    when = datetime.fromtimestamp(entry.time).astimezone()
    carried = ("", "", "")
    if entry.allowed and entry.kind != "dns":
        carried = (_bytes(entry.sent_bytes), _bytes(entry.received_bytes), f"{entry.seconds:.2f} s")
    verdict = "allowed" if entry.allowed else f"refused: {entry.reason}"
    return f"{when:%H:%M:%S}", entry.kind, _where(entry), verdict, *carried


def _where(entry: "EgressEntry") -> str:
    address = f"[{entry.address}]" if ":" in entry.address else entry.address
    port = f":{entry.port}" if entry.port else ""
    if entry.name and entry.address:
        return f"{entry.name}{port} ({entry.address})"
    return f"{entry.name or address}{port}"


def _bytes(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"
