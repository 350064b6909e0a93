"""`cove namespaces`: tenants and their limits, straight in the store, so it works whether or not the server runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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

if TYPE_CHECKING:
    from cove.core.namespaces import Namespaces
    from cove.models.stored import StoredNamespace

_T = TypeVar("_T")
_ALWAYS = ("id", "namespace", "name", "max_sandboxes")

app = typer.Typer(no_args_is_help=True)


@app.callback()
def namespaces() -> None:
    """List namespaces and set their limits. A namespace comes to be with its first key."""


@app.command("list")
def list_namespaces(
    data_dir: DataDir = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the namespaces and the limits that were set for them."""
    found = _with_namespaces(data_dir, lambda all_of_them: all_of_them.list())
    rows = [_row(namespace) for namespace in found]
    if as_json:
        output.print_json(rows)
    elif rows:
        used = [name for name in rows[0] if name in _ALWAYS or any(row[name] is not None for row in rows)]
        shown = [["" if row[name] is None else row[name] for name in used] for row in rows]
        output.print_table([_title(name) for name in used], shown)


@app.command("limits")
def limits(
    namespace: Annotated[str, typer.Argument(help="The namespace.")],
    data_dir: DataDir = None,
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
    clear: Annotated[bool, typer.Option("--clear", help="First drop all limits that were set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Set limits of a namespace, and show those that are set. The server's own limits hold beside them.

    Without options it only shows them. A running server notices within a second; sandboxes that are above a new limit
    stay. A server with --dev knows no namespaces and no limits of theirs.
    """
    from cove.models.quotas import Quota

    asked = Quota(
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

    async def act(known: Namespaces) -> StoredNamespace:
        found = await known.get(namespace)
        if asked.is_open and not clear:
            return found
        return await known.set_quota(namespace, asked if clear else asked.over(found.quota))

    row = _row(_with_namespaces(data_dir, act))
    if as_json:
        output.print_json(row)
    else:
        unset = {name: "not set" if value is None else value for name, value in row.items()}
        output.print_fields(unset)


def _row(namespace: StoredNamespace) -> dict[str, str | int | None]:
    return {
        "id": namespace.id,
        "namespace": namespace.name,
        "name": namespace.display_name,
        **namespace.quota.model_dump(),
    }


def _title(name: str) -> str:
    return name.removeprefix("max_").replace("_", " ").upper()


def _with_namespaces(data_dir: Path | None, action: Callable[[Namespaces], Awaitable[_T]]) -> _T:
    from cove.core.namespaces import Namespaces
    from cove.server.store_access import open_store

    return with_store(data_dir, open_store, lambda store: action(Namespaces(store)))
