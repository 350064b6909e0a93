"""`cove sandboxes show`: what a sandbox may use, and what it uses."""

from typing import TYPE_CHECKING

import typer

from cove.cli import output
from cove.cli.limit_options import unenforced
from cove.cli.network_options import shown as shown_policy
from cove.cli.sandboxes import ApiKey, AsJson, BaseUrl, SandboxId

if TYPE_CHECKING:
    from cove.models.sandboxes import SandboxInfo, SandboxUsage, UsageFigure
    from cove.models.secrets import SecretUse

_BAR = 20
_MIB = 1024 * 1024


def show(sandbox_id: SandboxId, base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show what a sandbox may use, what it uses, and which wall is around it. A paused one stays paused."""
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        info = control.get(sandbox_id)
        used = control.usage(sandbox_id)
    if as_json:
        output.print_json({"sandbox": info, "usage": used})
        return
    output.print_table(("", ""), _facts(info), title=f"Sandbox {output.plain(info.id)}")
    output.print_table(("USE", "NOW", "LIMIT", "", "PEAK"), _rows(used))
    if used.limits_not_enforced:
        typer.echo(unenforced(used.limits_not_enforced), err=True)


def _facts(info: "SandboxInfo") -> list[tuple[str, object]]:
    wall = f"{info.isolation} ({info.isolation_summary})" if info.isolation_summary else info.isolation
    rows: list[tuple[str, object]] = [
        ("status", info.status),
        ("template", info.template_name or info.template_id or "-"),
        ("isolation", wall),
        ("network", shown_policy(info.network)),
        *((f"secret {name}", _secret(secret)) for name, secret in info.secrets.items()),
        ("previews", info.preview_access or "-"),
        ("expires", output.until(info.expires_at)),
    ]
    limits = info.limits
    if limits is None:
        return rows
    more = {
        "open files": limits.open_files,
        "cpu share": f"{limits.cpu_share} (100 is normal)",
        "longest execution": limits.max_execution_seconds and f"{limits.max_execution_seconds} s",
        "output kept": limits.max_output_bytes and f"{limits.max_output_bytes} bytes",
        "bandwidth": limits.network_mbps and f"{limits.network_mbps} Mbit/s each way",
    }
    return [("name", info.name or "-"), *rows, *((name, value) for name, value in more.items() if value)]


def _secret(secret: "SecretUse") -> str:
    if secret.withdrawn:
        return "withdrawn"
    source = f"{secret.from_vault} of the vault, " if secret.from_vault else ""
    return f"{source}for {', '.join(secret.hosts)} in {', '.join(secret.places)}"


def _rows(used: "SandboxUsage") -> list[tuple[object, ...]]:
    memory, disk, inodes = used.memory_bytes, used.disk_bytes, used.inodes
    rows = [_row("memory", memory, megabytes=True), _row("processes", used.pids)]
    if disk is not None:
        rows.append(_row("disk", disk, megabytes=True))
    if inodes is not None:
        rows.append(_row("inodes", inodes))
    cpu = used.cpu_seconds
    rows.append(("cpu", f"{cpu.used:.2f} s", f"{cpu.limit or 0:g} processors", "", ""))
    if used.oom_kills:
        rows.append(("ended for memory", used.oom_kills, "", "", ""))
    return rows


def _row(name: str, figure: "UsageFigure", *, megabytes: bool = False) -> tuple[object, ...]:
    def shown(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value / _MIB:.1f} MiB" if megabytes else f"{value:.0f}"

    return name, shown(figure.used), shown(figure.limit), _bar(figure), shown(figure.peak)


def _bar(figure: "UsageFigure") -> str:
    if not figure.limit:
        return ""
    share = min(1.0, max(0.0, figure.used / figure.limit))
    filled = round(share * _BAR)
    return f"{'#' * filled}{'.' * (_BAR - filled)} {share:.0%}"
