"""`cove keys`: API keys, straight in the store, so that it works whether or not the server runs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cove.cli import output
from cove.cli.limit_options import (
    MaxCpuShare,
    MaxDisk,
    MaxExecutionSeconds,
    MaxInodes,
    MaxMemory,
    MaxNetworkMbps,
    MaxOpenFiles,
    MaxOutputBytes,
    MaxPids,
    MaxSandboxes,
    MaxTotalDisk,
    MaxTotalMemory,
    MaxTotalVcpu,
    MaxVcpu,
)
from cove.cli.locations import DataDir
from cove.cli.own_store import with_store
from cove.models.scopes import Scope

if TYPE_CHECKING:
    from cove.core.keys import ApiKeys

_T = TypeVar("_T")

app = typer.Typer(no_args_is_help=True)

_HOUR, _DAY = 3600, 86400
_UNITS = {"": _HOUR, "s": 1, "m": 60, "h": _HOUR, "d": _DAY, "w": 7 * _DAY, "mo": 30 * _DAY, "y": 365 * _DAY}
_LIFETIME = re.compile(r"([0-9]{1,9})(|s|m|h|d|w|mo|y)")


class Style(StrEnum):
    """Whose clients a key is for: they look at how it begins."""

    HOPX = "hopx"
    MICROSANDBOX = "microsandbox"


@app.callback()
def keys() -> None:
    """Make, list and revoke API keys."""


@app.command("create")
def create(
    name: Annotated[
        str | None,
        typer.Argument(
            help="What it is for, for example `laptop`; absent: a key for microsandbox.", show_default=False
        ),
    ] = None,
    data_dir: DataDir = None,
    namespace: Annotated[
        str, typer.Option(help="Sandboxes are seen only within their namespace; `*`: the key may enter any.")
    ] = "default",
    expire: Annotated[
        str | None,
        typer.Option(help="Lifetime: 30s, 15m, 12h, 7d, 2w, 6mo, 1y; absent: no end.", show_default=False),
    ] = None,
    scopes: Annotated[
        list[Scope] | None, typer.Option("--scope", help="What it may do; may be given again [default: all].")
    ] = None,
    style: Annotated[
        Style | None,
        typer.Option(help="What its clients want it to look like [default: hopx; without a name microsandbox]."),
    ] = None,
    max_sandboxes: MaxSandboxes = None,
    max_total_vcpu: MaxTotalVcpu = None,
    max_total_memory_mb: MaxTotalMemory = None,
    max_total_disk_mb: MaxTotalDisk = None,
    max_vcpu: MaxVcpu = None,
    max_memory_mb: MaxMemory = None,
    max_disk_mb: MaxDisk = None,
    max_pids: MaxPids = None,
    max_open_files: MaxOpenFiles = None,
    max_inodes: MaxInodes = None,
    max_cpu_share: MaxCpuShare = None,
    max_execution_seconds: MaxExecutionSeconds = None,
    max_output_bytes: MaxOutputBytes = None,
    max_network_mbps: MaxNetworkMbps = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the key.")] = False,
) -> None:
    """Make a key. It is shown once, now; only its hash is kept.

    Scopes: `read` sees, `exec` makes, uses and ends sandboxes, `admin` is for keys, limits and templates.

    Limits hold for the sandboxes made with this key, beside those of its namespace (`cove namespaces limits`). A key
    with limits may not make, see or revoke other keys.
    """
    from cove.core.keys import MICROSANDBOX_PREFIX, PREFIX
    from cove.models.quotas import Quota

    style = style or (Style.HOPX if name else Style.MICROSANDBOX)
    named = name or _dated_name(style)
    prefix = MICROSANDBOX_PREFIX if style is Style.MICROSANDBOX else PREFIX
    lifetime = _seconds(expire) if expire else None
    quota = Quota(
        max_sandboxes=max_sandboxes,
        max_total_vcpu=max_total_vcpu,
        max_total_memory_mb=max_total_memory_mb,
        max_total_disk_mb=max_total_disk_mb,
        max_vcpu=max_vcpu,
        max_memory_mb=max_memory_mb,
        max_disk_mb=max_disk_mb,
        max_pids=max_pids,
        max_open_files=max_open_files,
        max_inodes=max_inodes,
        max_cpu_share=max_cpu_share,
        max_execution_seconds=max_execution_seconds,
        max_output_bytes=max_output_bytes,
        max_network_mbps=max_network_mbps,
    )
    made = _with_keys(
        data_dir,
        lambda keys: keys.create(
            named,
            namespace=namespace,
            lifetime_seconds=lifetime,
            quota=quota,
            scopes=frozenset(scopes or Scope),
            prefix=prefix,
        ),
    )
    if not quiet:
        typer.echo(f"Key {named!r} for namespace {namespace!r}. Keep it: it is not shown again.", err=True)
    typer.echo(made.key)
    if not quiet:
        variable = "MSB_API_KEY" if style is Style.MICROSANDBOX else "COVE_API_KEY"
        typer.echo(f"Use it: export {variable}={made.key}", err=True)


@app.command("list")
def list_keys(
    data_dir: DataDir = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the keys, never their secret part."""
    from datetime import UTC, datetime

    def moment(seconds: float | None) -> str:
        return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")

    found = _with_keys(data_dir, lambda keys: keys.list())
    rows = [
        {
            "name": key.name,
            "key": f"{key.prefix}{key.id}...",
            "namespace": key.namespace,
            "created": moment(key.created_at),
            "expires": moment(key.expires_at) or "never",
            "last_used": moment(key.last_used_at) or "never",
            "scopes": " ".join(scope for scope in Scope if scope in key.scopes),
            "state": "revoked" if key.revoked_at else "active",
            "limits": " ".join(f"{name}={value}" for name, value in key.quota.model_dump(exclude_none=True).items()),
        }
        for key in found
    ]
    if as_json:
        output.print_json(rows)
    elif rows:
        output.print_table([name.replace("_", " ").upper() for name in rows[0]], [list(row.values()) for row in rows])
    else:
        typer.echo("No keys; `cove keys create NAME` makes one.", err=True)


@app.command("revoke")
def revoke(
    reference: Annotated[str, typer.Argument(help="The key's name, or the start of the key as `list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Make a key useless, at once; a running server notices within two seconds."""
    revoked = _with_keys(data_dir, lambda keys: keys.revoke(_as_listed(reference)))
    typer.echo(f"Key {revoked.name!r} ({revoked.prefix}{revoked.id}...) is revoked.", err=True)


def _with_keys(data_dir: Path | None, action: Callable[[ApiKeys], Awaitable[_T]]) -> _T:
    from cove.server.store_access import open_keys

    return with_store(data_dir, open_keys, action)


def _as_listed(reference: str) -> str:
    """The id, if this is the start of a key as `list` shows it."""
    from cove.core.keys import MICROSANDBOX_PREFIX, PREFIX, is_key_id

    shown = reference.removesuffix("...").removeprefix(PREFIX).removeprefix(MICROSANDBOX_PREFIX)
    return shown if is_key_id(shown) else reference


def _dated_name(style: Style) -> str:
    from datetime import UTC, datetime

    return f"{style}-{datetime.now(UTC):%Y-%m-%d}"


def _seconds(text: str) -> float:
    """A bare number is hours, a month 30 days and a year 365: as microsandbox has it."""
    from cove.models.errors import error

    found = _LIFETIME.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not seconds:
        remedy = "Give a number and s, m, h, d, w, mo or y: 12h."
        raise error("INVALID_REQUEST", f"{text[:40]!r} is not a lifetime.", remedy=remedy)
    return float(seconds)
