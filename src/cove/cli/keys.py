"""`cove keys`: API keys, straight in the store, so that it works whether or not the server runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cove.cli import output
from cove.cli.locations import DataDir, data_directory
from cove.cli.namespaces import MaxSandboxes, MaxTotalDisk, MaxTotalMemory, MaxTotalVcpu

if TYPE_CHECKING:
    from cove.core.keys import ApiKeys

_T = TypeVar("_T")

app = typer.Typer(no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Make, list and revoke API keys."""


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for, for example `laptop`.")],
    data_dir: DataDir = None,
    namespace: Annotated[str, typer.Option(help="Sandboxes are seen only within their namespace.")] = "default",
    expire: Annotated[
        str | None, typer.Option(help="Lifetime: 30s, 15m, 12h, 7d, 2w; absent: no end.", show_default=False)
    ] = None,
    max_sandboxes: MaxSandboxes = None,
    max_total_vcpu: MaxTotalVcpu = None,
    max_total_memory_mb: MaxTotalMemory = None,
    max_total_disk_mb: MaxTotalDisk = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the key.")] = False,
) -> None:
    """Make a key. It is shown once, now; only its hash is kept.

    Limits hold for the sandboxes made with this key, beside those of its namespace (`cove namespaces limits`). A key
    with limits may not make, see or revoke other keys.
    """
    from cove.models.quotas import Quota

    lifetime = _seconds(expire) if expire else None
    quota = Quota(
        max_sandboxes=max_sandboxes,
        max_total_vcpu=max_total_vcpu,
        max_total_memory_mb=max_total_memory_mb,
        max_total_disk_mb=max_total_disk_mb,
    )
    made = _with_keys(
        data_dir, lambda keys: keys.create(name, namespace=namespace, lifetime_seconds=lifetime, quota=quota)
    )
    if not quiet:
        typer.echo(f"Key {name!r} for namespace {namespace!r}. Keep it: it is not shown again.", err=True)
    typer.echo(made.key)
    if not quiet:
        typer.echo(f"Use it: export COVE_API_KEY={made.key}", err=True)


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
            "key": f"hopx_live_{key.id}...",
            "namespace": key.namespace,
            "created": moment(key.created_at),
            "expires": moment(key.expires_at) or "never",
            "last_used": moment(key.last_used_at) or "never",
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
    revoked = _with_keys(data_dir, lambda keys: keys.revoke(reference))
    typer.echo(f"Key {revoked.name!r} (hopx_live_{revoked.id}...) is revoked.", err=True)


def _with_keys(data_dir: Path | None, action: Callable[[ApiKeys], Awaitable[_T]]) -> _T:
    import asyncio

    from cove.server.settings import Settings
    from cove.server.store_access import open_keys

    async def act() -> _T:
        async with open_keys(settings) as keys:
            return await action(keys)

    settings = Settings(data_dir=data_directory(data_dir))
    settings.data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    return asyncio.run(act())


def _seconds(text: str) -> float:
    from cove.models.errors import error

    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isascii() or not number.isdigit() or int(number) == 0:
        raise error("INVALID_REQUEST", f"{text!r} is not a lifetime.", remedy="Give a number and s, m, h, d or w: 12h.")
    return float(int(number) * units[unit])
