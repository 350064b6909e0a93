"""`cove sandboxes`: the sandboxes of a running server."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cove.cli import output
from cove.cli.network_options import shown

if TYPE_CHECKING:
    from cove.models.sandboxes import SandboxInfo
    from cove.sdk import ControlPlane, Sandbox

app = typer.Typer(no_args_is_help=True)

BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="Address of the server [default: COVE_BASE_URL, else http://127.0.0.1:5555].",
        show_default=False,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="API key [default: COVE_API_KEY].", show_default=False),
]
SandboxId = Annotated[str, typer.Argument(metavar="ID", help="Id of the sandbox.")]
SandboxIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the sandboxes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# Errors that the next sandbox would meet too.
_NOT_ABOUT_ONE = ("NETWORK_ERROR", "AUTHENTICATION_REQUIRED", "RATE_LIMIT_EXCEEDED")


@app.command("list")
def list_sandboxes(
    status: Annotated[str | None, typer.Option(help="Only those with this status, for example running.")] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List the sandboxes that exist."""
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        found = [*control.sandboxes(status=status)]
    if as_json:
        output.print_json(found)
    elif found:
        output.print_table(
            ("ID", "NAME", "TEMPLATE", "STATUS", "ISOLATION", "AGE", "EXPIRES"), [_row(info) for info in found]
        )
    else:
        typer.echo("No sandboxes.", err=True)


@app.command("info")
def info(
    sandbox_id: SandboxId,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one sandbox. A paused one stays paused."""
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        found = control.get(sandbox_id)
    if as_json:
        output.print_json(found)
        return
    output.print_fields(
        {
            "id": found.id,
            "name": found.name,
            "namespace": found.namespace,
            "status": found.status,
            "template": found.template_name or found.template_id,
            "isolation": f"{found.isolation} ({found.isolation_summary})"
            if found.isolation_summary
            else found.isolation,
            "resources": _resources(found),
            "network": shown(found.network),
            "region": found.region,
            "created": f"{found.created_at.isoformat()} ({output.since(found.created_at)} ago)",
            "expires": output.until(found.expires_at),
            "agent": found.public_host,
        }
    )


@app.command("kill")
def kill(
    sandbox_ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids of the sandboxes.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Kill all that this key can see.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --all.")] = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Kill sandboxes. Ends with 1 when one of them could not be killed; the others are killed nevertheless."""
    from cove.sdk import ControlPlane

    if every == bool(sandbox_ids):
        raise typer.BadParameter("give ids, or --all")
    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        chosen = sandbox_ids or [found.id for found in control.sandboxes()]
        if every and chosen and not yes:
            _confirm(len(chosen), as_json=as_json)
        killed, failed = _kill(control, chosen, gone_is_fine=every)
    if as_json:
        output.print_json({"killed": killed, "failed": failed})
    else:
        for sandbox_id in killed:
            typer.echo(sandbox_id)
        output.print_failures(failed)
    sys.exit(1 if failed else 0)


@app.command("pause")
def pause(sandbox_ids: SandboxIds, base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Freeze all that runs in sandboxes; memory stays as it is. Their deadlines run on."""
    _change("pause", sandbox_ids, base_url, api_key, as_json=as_json)


@app.command("resume")
def resume(sandbox_ids: SandboxIds, base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Go on with paused sandboxes."""
    _change("resume", sandbox_ids, base_url, api_key, as_json=as_json)


@app.command("stop")
def stop(sandbox_ids: SandboxIds, base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """End all that runs in sandboxes and keep their disks. Their deadlines run on."""
    _change("stop", sandbox_ids, base_url, api_key, as_json=as_json)


@app.command("start")
def start(sandbox_ids: SandboxIds, base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Start stopped sandboxes again, on their disks, under their ids."""
    _change("start", sandbox_ids, base_url, api_key, as_json=as_json)


@app.command("timeout")
def set_timeout(
    sandbox_id: SandboxId,
    seconds: Annotated[int, typer.Argument(help="Seconds from now; 0 removes the deadline.", min=0)],
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Move the deadline of a sandbox."""
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        answer = control.set_timeout(sandbox_id, seconds)
    if as_json:
        output.print_json(answer)
    else:
        typer.echo(f"expires {output.until(answer.expires_at)}")


@app.command("url")
def url(
    sandbox_id: SandboxId,
    port: Annotated[int, typer.Argument(help="Port that a program in the sandbox listens on.", min=1, max=65535)],
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Print the address at which a port of a sandbox is reached."""
    with output.reporting(as_json=as_json), opened(sandbox_id, base_url=base_url, api_key=api_key) as sandbox:
        address = sandbox.get_preview_url(port)
    if as_json:
        output.print_json({"url": address})
    else:
        typer.echo(output.plain(address))


@contextmanager
def opened(sandbox_id: str, *, base_url: str | None, api_key: str | None) -> "Generator[Sandbox]":
    """The sandbox as it is: a paused one stays paused, and at the end it lives on."""
    from cove.sdk import ControlPlane, Sandbox

    with ControlPlane(base_url=base_url, api_key=api_key) as control:
        yield Sandbox(control.get(sandbox_id), control)


def _change(action: str, sandbox_ids: list[str], base_url: str | None, api_key: str | None, *, as_json: bool) -> None:
    """Do `action` with each. Ends with 1 when one of them refused; the others are changed nevertheless."""
    from cove.models.errors import CoveError
    from cove.sdk import ControlPlane

    changed: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        call = {"pause": control.pause, "resume": control.resume, "stop": control.stop, "start": control.start}[action]
        for sandbox_id in dict.fromkeys(sandbox_ids):
            try:
                changed.append({"id": sandbox_id, "status": call(sandbox_id).status})
            except CoveError as problem:
                if problem.code in _NOT_ABOUT_ONE:
                    raise
                failed.append({"id": sandbox_id, "error": output.error_fields(problem)})
    if as_json:
        output.print_json({"changed": changed, "failed": failed})
    else:
        for done in changed:
            typer.echo(output.plain(f"{done['id']} {done['status']}"))
        output.print_failures(failed)
    sys.exit(1 if failed else 0)


def _confirm(count: int, *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise typer.BadParameter(f"{count} sandboxes would be killed; give --yes to say that this is meant")
    typer.confirm(f"Kill {count} sandboxes?", abort=True, err=True)


def _kill(
    control: "ControlPlane", sandbox_ids: list[str], *, gone_is_fine: bool
) -> tuple[list[str], list[dict[str, Any]]]:
    from cove.models.errors import Conflict, InvalidRequest, NotFound

    killed: list[str] = []
    failed: list[dict[str, Any]] = []
    for sandbox_id in dict.fromkeys(sandbox_ids):
        try:
            control.delete(sandbox_id)
        except (Conflict, InvalidRequest, NotFound) as problem:
            if not gone_is_fine or not isinstance(problem, NotFound):
                failed.append({"id": sandbox_id, "error": output.error_fields(problem)})
            continue
        killed.append(sandbox_id)
    return killed, failed


def _row(info: "SandboxInfo") -> tuple[object, ...]:
    template = info.template_name or info.template_id or "-"
    times = output.since(info.created_at), output.until(info.expires_at)
    return info.id, info.name or "-", template, info.status, info.isolation, *times


def _resources(info: "SandboxInfo") -> str:
    given = info.resources
    if given is None:
        return ""
    return f"{given.vcpu} vCPU, {given.memory_mb} MiB memory, {given.disk_mb} MiB disk"
