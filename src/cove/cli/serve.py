"""`cove serve`: the server of this machine."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cove.cli.locations import DataDir


def serve(
    dev: Annotated[bool, typer.Option("--dev", help="No API keys; only on a loopback address.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.", show_default="5555")] = None,
    data_dir: DataDir = None,
    user: Annotated[
        str | None,
        typer.Option(
            envvar="COVE_USER",
            show_envvar=False,
            help="Whom a server that root starts becomes: an account, an id, or root.",
            show_default="cove, or an id of its own",
        ),
    ] = None,
    isolation: Annotated[
        str | None, typer.Option(help="auto, or a level to insist on, e.g. gvisor.", show_default="auto")
    ] = None,
    pool_size: Annotated[int | None, typer.Option(help="Warm sandboxes kept ready.", show_default="4")] = None,
    max_sandboxes: Annotated[int | None, typer.Option(help="Of all users together.", show_default="1000")] = None,
    public_url: Annotated[str | None, typer.Option(help="How clients reach this server.", show_default=False)] = None,
    domain: Annotated[
        str | None, typer.Option(help="Ports of sandboxes are at PORT-ID.DOMAIN.", show_default=False)
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM).", show_default=False)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", show_default=False)] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name by which clients may call this server.", show_default=False)
    ] = None,
    preview_access: Annotated[
        str | None,
        typer.Option(
            help="Programs in sandboxes answer everybody (public), or with a link or token (token).",
            show_default="public",
        ),
    ] = None,
    allow_webhook: Annotated[
        list[str] | None,
        typer.Option(help="A host or network that webhooks may go to although it is not public.", show_default=False),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="What sandboxes may reach that ask for nothing: none, public or package-registries.",
            show_default="none",
        ),
    ] = None,
    allow_internal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="What sandboxes may reach, if allowed, although its addresses are not public.",
            show_default=False,
        ),
    ] = None,
    package_registry: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="What the preset package-registries means.",
            show_default="where pip downloads from",
        ),
    ] = None,
    nameserver: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Asked for sandboxes.", show_default="this machine's"),
    ] = None,
    allow_volume: Annotated[
        list[Path] | None,
        typer.Option(help="A directory here that may be copied into sandboxes (volumes).", show_default=False),
    ] = None,
    toolset: Annotated[
        str | None, typer.Option(help="Tools of /mcp: core, hopx, microsandbox or all.", show_default="all")
    ] = None,
    oauth_issuer: Annotated[
        str | None,
        typer.Option(help="Authorization server whose access tokens /mcp takes.", show_default=False),
    ] = None,
    keep_sandboxes: Annotated[
        bool, typer.Option("--keep-sandboxes", help="Let sandboxes run on when the server ends.")
    ] = False,
    allow_unenforced: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Start sandboxes although this machine cannot enforce these limits, e.g. memory_mb,vcpu.",
            show_default=False,
        ),
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, json or console.", show_default="auto")] = None,
) -> None:
    """Serve the REST API, and everything that sandboxes need, until Ctrl-C.

    Every option can also be set as a variable: COVE_PORT, COVE_DATA_DIR, COVE_POOL_SIZE ...
    """
    chosen = {
        "dev": dev or None,
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "user": user,
        "isolation": isolation,
        "pool_size": pool_size,
        "max_sandboxes": max_sandboxes,
        "public_url": public_url,
        "domain": domain,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "allowed_hosts": tuple(allow_host) if allow_host else None,
        "preview_access": preview_access,
        "webhook_allow": tuple(allow_webhook) if allow_webhook else None,
        "network": network,
        "allow_internal": tuple(allow_internal) if allow_internal else None,
        "package_registries": tuple(package_registry) if package_registry else None,
        "nameservers": tuple(nameserver) if nameserver else None,
        "allowed_volumes": tuple(path.absolute() for path in allow_volume) if allow_volume else None,
        "mcp_toolset": toolset,
        "oauth_issuer": oauth_issuer,
        "allow_unenforced": allow_unenforced,
        "log_format": log_format,
    }
    from cove.server.server_user import server_user

    becoming = server_user(user)
    supervised = None
    if becoming is not None:
        from cove.server.supervising import divide

        supervised = divide(becoming)  # from here on this is the child
    settings = _settings({name: value for name, value in chosen.items() if value is not None})
    base = _supervised_base(settings, supervised, keep_sandboxes) if supervised else None

    import uvloop

    from cove.server import running
    from cove.server.logs import configure_logging

    configure_logging(settings)
    _say_missing_templates(settings)
    uvloop.run(running.serve(settings, keep_sandboxes=keep_sandboxes, on_ready=_say_ready, base=base))


def _supervised_base(settings: Any, supervised: Any, keep_sandboxes: bool) -> Any:
    from functools import partial

    from cove.server.host_options import HostOptions
    from cove.server.supervised import become
    from cove.server.supervising import Plan

    certificate = (settings.tls_cert, settings.tls_key) if settings.tls_cert else ()
    grant = supervised.ask(
        Plan(
            data_dir=str(settings.data_dir),
            host=settings.host,
            port=settings.port,
            daemon=HostOptions.of(settings, keep_sandboxes=keep_sandboxes),
            certificate=[str(path) for path in certificate],
        )
    )
    become(supervised, settings.data_dir)
    from cove.server import running

    return partial(running.standing_on, grant, supervised.link)


def _settings(chosen: dict[str, Any]) -> Any:
    import pydantic

    from cove.models.errors import error
    from cove.server.settings import Settings

    try:
        return Settings(**chosen)
    except pydantic.ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise error("INVALID_REQUEST", f"{name}: {text}." if name else f"{text}.") from None


def _say_missing_templates(settings: Any) -> None:
    from cove.hostd.assembly import template_store

    built = {manifest.name for manifest in template_store(settings.data_dir).list()}
    missing = [name for name in settings.pool_templates if name not in built]
    if missing:
        typer.echo(f"Template {', '.join(missing)} is not built yet: `cove templates build {missing[0]}`.", err=True)


def _say_ready(settings: Any) -> None:
    how = "no key needed (--dev)" if settings.dev else "keys: `cove keys create NAME`"
    where = settings.port_origin
    ports = f" Ports of sandboxes: {where.format(port='PORT', id='ID')}." if where else ""
    typer.echo(f"Cove serves {settings.base_url}, {how}.{ports} Ctrl-C ends it.", err=True)
