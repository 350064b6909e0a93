"""`cove sandboxes create`: a sandbox of a running server."""

from typing import Annotated

import typer

from cove.cli import output
from cove.cli.environment import variables
from cove.cli.limit_options import LimitsAsked, resources_asked, unenforced
from cove.cli.network_options import Allowed, Denied, Internet, Preset, policy_asked
from cove.cli.sandbox_preview import Access
from cove.cli.sandboxes import ApiKey, AsJson, BaseUrl
from cove.cli.secret_options import Secrets, secrets_asked


def create(
    template: Annotated[str, typer.Argument(help="What it is made from.")] = "code-interpreter",
    name: Annotated[str | None, typer.Option(help="Finds it again.", show_default=False)] = None,
    timeout: Annotated[
        int | None, typer.Option(min=0, help="Seconds until it is killed; 0: never.", show_default=False)
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, may be repeated.", show_default=False)
    ] = None,
    secret: Secrets = None,
    limit: LimitsAsked = None,
    isolation: Annotated[
        str | None, typer.Option(help="A level to insist on, e.g. gvisor.", show_default=False)
    ] = None,
    internet: Internet = False,
    network: Preset = None,
    allow: Allowed = None,
    deny: Denied = None,
    preview_access: Access = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Create a sandbox and print its id. It lives until its timeout, or until it is killed.

    Examples:

        cove sandboxes create base --limit memory_mb=512 --limit pids=64

        cove sandboxes create --network package-registries --allow api.example.com

        cove sandboxes create --allow api.example.com --secret API_TOKEN@api.example.com
    """
    from cove.sdk import ControlPlane

    with output.reporting(as_json=as_json), ControlPlane(base_url=base_url, api_key=api_key) as control:
        made = control.create(
            template,
            name=name,
            timeout_seconds=timeout,
            env_vars=variables(env or []) or None,
            secrets=secrets_asked(secret),
            resources=resources_asked(limit),
            isolation=isolation,
            network=policy_asked(allow, deny, network, internet=internet),
            preview_access=preview_access,
        )
    if as_json:
        output.print_json(made.model_dump(mode="json", exclude={"auth_token", "token_expires_at"}))
        return
    if made.limits_not_enforced:
        typer.echo(unenforced(made.limits_not_enforced), err=True)
    typer.echo(made.id)
