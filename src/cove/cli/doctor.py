"""`cove doctor`: what this machine can do, tried out, and what to type where it cannot."""

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cove.cli.locations import DataDir, data_directory


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: ok, partly, missing.
        remedy: the exact command that changes it; empty where nothing is to be done.
    """

    name: str
    state: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `cove doctor` says."""

    machine: dict[str, str]
    cgroup_mode: str
    enforced_limits: list[str]
    drivers: list[dict[str, Any]]
    templates: list[str]
    findings: list[Finding]

    @property
    def works(self) -> bool:
        """Whether a sandbox can be started here."""
        return any(driver["available"] for driver in self.drivers)


def doctor(
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try out what this machine can do, and say what to type where something is missing.

    Ends with 0 when sandboxes can be started here, with 1 otherwise.
    """
    import asyncio

    diagnosis = asyncio.run(_diagnose(data_directory(data_dir)))
    if as_json:
        import json

        typer.echo(json.dumps({"works": diagnosis.works, **asdict(diagnosis)}, indent=2))
    else:
        _show(diagnosis)
    sys.exit(0 if diagnosis.works else 1)


async def _diagnose(data_dir: Path) -> Diagnosis:
    from cove.host.cgroups import Cgroups, detect
    from cove.hostd.assembly import embedded_host, template_store

    cgroups = Cgroups(detect())
    async with embedded_host(data_dir) as host:
        reports = await host.check(fresh=True)
    network = await _network_finding()
    built = [manifest.name for manifest in template_store(data_dir).list()]
    drivers = [report.model_dump(mode="json") for report in reports]
    return Diagnosis(
        machine=_machine(data_dir),
        cgroup_mode=str(cgroups.mode),
        enforced_limits=sorted({limit for report in reports for limit in report.capabilities.limits}),
        drivers=drivers,
        templates=built,
        findings=[*_driver_findings(drivers), network, *_other_findings(data_dir, built), *_host_findings()],
    )


def _machine(data_dir: Path) -> dict[str, str]:
    free = shutil.disk_usage(data_dir).free
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processors": str(os.cpu_count()),
        "user": "root" if os.geteuid() == 0 else f"uid {os.geteuid()}",
        "cove serve would be": _serves_as(),
        "python": platform.python_version(),
        "data directory": f"{data_dir} ({free // 2**30} GiB free)",
    }


def _serves_as() -> str:
    from cove.models.errors import CoveError
    from cove.server.server_user import VARIABLE, server_user

    try:
        user = server_user(os.environ.get(VARIABLE))
    except CoveError as problem:
        return f"refused: {problem.message}"
    if user is None:
        return "root, with all its privileges" if os.geteuid() == 0 else "you"
    return f"user {user.name}, without privileges"


def _host_findings() -> list[Finding]:
    from cove.cli.host_settings import host_settings

    return [Finding(one.name, one.state, one.detail, one.remedy) for one in host_settings()]


def _driver_findings(drivers: list[dict[str, Any]]) -> list[Finding]:
    findings: list[Finding] = []
    for driver in drivers:
        name = f"driver {driver['isolation']}"
        if not driver["available"]:
            remedy = "; ".join(driver["remedies"])
            findings.append(Finding(name, "missing", " ".join(driver["problems"]), remedy))
        for lost in driver["lost"]:
            findings.append(Finding(name, "partly", lost))
    return findings


async def _network_finding() -> Finding:
    from cove.cli.network_check import network_problem

    problem = await network_problem()
    if problem is None:
        return Finding("networks", "ok", "sandboxes can have networks within a policy (tried)")
    return Finding("networks", "partly", f"sandboxes stay without a network: {problem[0]}", problem[1])


def _other_findings(data_dir: Path, built: list[str]) -> list[Finding]:
    from cove.host.authority import FILE_NAME as AUTHORITY_FILE
    from cove.host.authority import authority_problem
    from cove.hostd.assembly import authority_directory

    findings = [
        Finding(f"template {name}", "missing", "not built yet", f"cove templates build {name}")
        for name in ("base", "code-interpreter")
        if name not in built
    ]
    if shutil.disk_usage(data_dir).free < 4 * 2**30:
        findings.append(Finding("disk", "partly", "less than 4 GiB are free for templates and sandboxes"))
    if problem := authority_problem(authority_directory(data_dir)):
        remedy = f"remove {authority_directory(data_dir) / AUTHORITY_FILE} and start the server anew, then sandboxes"
        findings.append(Finding("authority for secrets", "partly", problem, remedy))
    for command in ("git", "curl"):
        if not Path(f"/usr/bin/{command}").exists():
            findings.append(
                Finding(command, "partly", "not on this host, so not in templates", f"apt-get install {command}")
            )
    return findings


def _show(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    machine = Table.grid(padding=(0, 2))
    for name, value in diagnosis.machine.items():
        machine.add_row(f"[bold]{name}[/bold]", escape(value))
    machine.add_row("[bold]cgroups[/bold]", diagnosis.cgroup_mode)
    machine.add_row("[bold]limits in force[/bold]", ", ".join(diagnosis.enforced_limits) or "none")
    machine.add_row("[bold]templates built[/bold]", ", ".join(diagnosis.templates) or "none")
    console.print(machine)
    drivers = Table("driver", "works", "isolation", "probe", title="Drivers", title_justify="left")
    for driver in diagnosis.drivers:
        works = "[green]yes[/green]" if driver["available"] else "[red]no[/red]"
        drivers.add_row(driver["isolation"], works, driver["summary"], f"{driver['seconds']:.2f} s")
    console.print(drivers)
    for finding in diagnosis.findings:
        colour = {"ok": "green", "partly": "yellow"}.get(finding.state, "red")
        console.print(f"[{colour}]{finding.state:8}[/{colour}] [bold]{finding.name}[/bold]: {escape(finding.detail)}")
        if finding.remedy:
            console.print(f"         type: {escape(finding.remedy)}", style="cyan")
    if diagnosis.works:
        console.print("[green]Sandboxes can be started on this machine.[/green]")
    else:
        console.print("[red]No sandbox can be started on this machine as it is.[/red]")
