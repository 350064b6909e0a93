"""`cove audit`: who did what, as a running server tells it."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cove.cli import output
from cove.cli.sandboxes import ApiKey, AsJson, BaseUrl
from cove.models.errors import error

if TYPE_CHECKING:
    from cove.models.audit import AuditEntry
    from cove.sdk import ControlPlane

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_POLL_SECONDS = 1.0
_LATE = timedelta(minutes=5)
"""Entries may come so much later than what they tell of; those that were shown are not shown again."""


def audit(
    sandbox: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what concerns this sandbox.", show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what was done with this API key.", show_default=False)
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(help="What actions begin with, for example `sandbox.` or `code.run`.", show_default=False),
    ] = None,
    outcome: Annotated[
        str | None, typer.Option(help="`ok`, or the code of an error, for example FORBIDDEN.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="`30m`, `12h`, `7d` ago, or a time like 2026-01-17T12:00Z.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    namespace: Annotated[
        str | None, typer.Option(help="Of this namespace, for keys that may enter any.", show_default=False)
    ] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show who did what to which sandbox, key or template. The key needs the scope `admin`.

    A key sees its own namespace; one that may enter any (`--namespace '*'`) sees all.

    [bold]cove audit --since 1h[/bold]: what happened in the last hour

    [bold]cove audit --sandbox 1763382095i648uu1o[/bold]: the life of a sandbox, and all that was run in it

    [bold]cove audit --key 3f9c2a7be01d --action code.[/bold]: what code a key has run, and where

    [bold]cove audit --action request.refused --follow[/bold]: who is turned away, as it happens

    With `--json` it prints a list, and with `--follow` one entry a line.
    """
    from cove.sdk import ControlPlane

    filters: dict[str, Any] = {"sandbox_id": sandbox, "actor": key, "action": action, "outcome": outcome}
    with (
        output.reporting(as_json=as_json),
        ControlPlane(base_url=base_url, api_key=api_key, namespace=namespace) as control,
    ):
        found = list(islice(control.audit(since=_moment(since), **filters), limit))
        if not follow:
            _print(found, as_json=as_json)
            return
        for entry in _followed(control, found, filters):
            _print_line(entry, as_json=as_json)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago:
        return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise error(
            "INVALID_REQUEST", f"--since {text!r} is no time.", remedy="Write 30m, 12h, 7d, or 2026-01-17T12:00Z."
        ) from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _followed(control: "ControlPlane", found: "list[AuditEntry]", filters: dict[str, Any]) -> "Iterator[AuditEntry]":
    """Those that were found, oldest first, then new ones as they come; without an end."""
    last = 0
    for entry in reversed(found):
        last = max(last, entry.id)
        yield entry
    while True:
        fresh: list[AuditEntry] = []
        for entry in control.audit(since=datetime.now(UTC) - _LATE, **filters):
            if entry.id <= last:
                break
            fresh.append(entry)
        for entry in reversed(fresh):
            last = entry.id
            yield entry
        time.sleep(_POLL_SECONDS)


def _print(found: "list[AuditEntry]", *, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
    elif found:
        columns = ("TIME", "ACTOR", "NAMESPACE", "ACTION", "SUBJECT", "OUTCOME", "ADDRESS", "DETAILS")
        output.print_table(columns, [_row(entry) for entry in found])
    else:
        typer.echo("No entries.", err=True)


def _print_line(entry: "AuditEntry", *, as_json: bool) -> None:
    line = entry.model_dump_json() if as_json else "  ".join(cell for cell in _row(entry) if cell)
    output.pass_on(line + "\n" if as_json else output.plain(line) + "\n")


def _row(entry: "AuditEntry") -> tuple[str, ...]:
    return (
        entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
        entry.actor,
        entry.namespace,
        entry.action,
        entry.subject,
        entry.outcome,
        entry.address,
        " ".join(f"{name}={_short(value)}" for name, value in entry.details.items()),
    )


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=True)
