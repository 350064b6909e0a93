"""Run everything of one machine: host daemon, control plane, gateway; end it in order."""

import asyncio
import contextlib
import functools
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI

from cove.core.enforcement import require
from cove.hostd.client import RemoteHost
from cove.models.errors import error
from cove.models.previews import PreviewAccess
from cove.server.app import ControlPlane, build_control_plane
from cove.server.claiming import claim_server
from cove.server.gateway.certificate import ServerCertificate
from cove.server.gateway.gateway import Gateway
from cove.server.gateway.settings import GatewaySettings
from cove.server.host_options import HostOptions
from cove.server.host_process import HostProcess
from cove.server.listening import bind
from cove.server.local_address import server_directory
from cove.server.local_address import socket_path as local_socket_path
from cove.server.local_door import bind_local_door, published
from cove.server.settings import Settings
from cove.server.supervised import HostDaemon, SupervisedHost, SupervisorLink, closed, paths_of, reloading
from cove.server.supervising import Grant

_GRACE_SECONDS: Final = 10.0
_START_SECONDS: Final = 60.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footing:
    """What a server stands on, whoever has made it: this process, or its supervisor.

    Attributes:
        lost: returns when the server can stand no longer.
    """

    listener: socket.socket
    daemon: HostDaemon
    certificate: ServerCertificate | None
    lost: Callable[[], Coroutine[Any, Any, None]] | None = None


Base = Callable[[Settings], AbstractContextManager[Footing]]


async def serve(
    settings: Settings,
    *,
    keep_sandboxes: bool = False,
    on_ready: Callable[[Settings], None] | None = None,
    base: Base | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        keep_sandboxes: let sandboxes run on at the end; the next server on this data directory adopts them.
        on_ready: called with the settings in force (the real port, where 0 was asked for) when all answers.
        base: makes what the server stands on; without, this process does so itself.

    Raises:
        CoveError: the certificate cannot be used, the port or the data directory is taken, the host daemon does not
            start, the store cannot be opened.
    """
    stop = stop_signal()
    async with contextlib.AsyncExitStack() as stack:
        footing = stack.enter_context(base(settings) if base else standing_alone(settings, keep_sandboxes))
        settings = settings.model_copy(update={"port": footing.listener.getsockname()[1]})
        running = await stack.enter_async_context(
            everything(settings, footing.daemon, listeners=[footing.listener], certificate=footing.certificate)
        )
        stack.enter_context(published(settings.data_dir, running.plane.engine.delegated_keys, on_demand=False))
        _log.info(
            "serving",
            url=settings.base_url,
            sandboxes=settings.port_origin,
            dev=settings.dev,
            isolation=str(settings.isolation),
            uid=os.geteuid(),
        )
        if on_ready:
            on_ready(settings)
        running.plane.mcp.load()
        await running.until(stop.wait(), *([footing.lost()] if footing.lost else []))
        _log.info("ending")


@contextlib.contextmanager
def standing_alone(settings: Settings, keep_sandboxes: bool) -> Generator[Footing]:
    """This process binds the port, reads the certificate, and has the host daemon as its child.

    Raises:
        CoveError: see `serve`.
    """
    certificate = _certificate(settings)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(bind(settings.host, settings.port)))
        stack.enter_context(claim_server(settings.data_dir))
        daemon = HostProcess(settings.data_dir, HostOptions.of(settings, keep_sandboxes=keep_sandboxes))
        yield Footing(listener=listener, daemon=daemon, certificate=certificate)


@contextlib.contextmanager
def standing_on(grant: Grant, link: socket.socket, settings: Settings) -> Generator[Footing]:
    """A supervisor has bound the port and has the host daemon as its child; it hands certificates on.

    Raises:
        CoveError: INVALID_REQUEST: the certificate cannot be used.
    """
    certificate = _granted_certificate(grant, settings)

    def replace(descriptors: Sequence[int]) -> None:
        if certificate is not None:
            reloading(functools.partial(certificate.reload, *paths_of(descriptors)))

    supervisor = SupervisorLink(link, on_certificate=replace)
    with contextlib.closing(supervisor), contextlib.closing(grant.listener):
        daemon = SupervisedHost(settings.data_dir, supervisor)
        yield Footing(listener=grant.listener, daemon=daemon, certificate=certificate, lost=supervisor.lost)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        control_plane: the task that serves it.
    """

    plane: ControlPlane
    host: RemoteHost
    control_plane: asyncio.Task[None]

    async def until(self, *ends: Coroutine[Any, Any, object]) -> None:
        """Wait for the first of `ends`; a control plane that ends by itself is a failure, and ends everything."""
        waiting = [asyncio.ensure_future(end) for end in ends]
        try:
            await asyncio.wait({*waiting, self.control_plane}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in waiting:
                end.cancel()
        if self.control_plane.done():
            raise error("INTERNAL_ERROR", "The control plane ended by itself; the log says why.")


@contextlib.asynccontextmanager
async def everything(
    settings: Settings,
    daemon: HostDaemon,
    *,
    listeners: Sequence[socket.socket] = (),
    certificate: ServerCertificate | None = None,
) -> AsyncGenerator[Running]:
    """Host daemon, control plane and gateway, on `listeners` and on the local door, for the time of the block."""
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(daemon.close)
        await daemon.start()
        host = RemoteHost(daemon.socket_path)
        stack.push_async_callback(host.close)
        await require(host, settings.driver)
        server_directory(settings.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        plane = build_control_plane(settings, host)
        socket_path = server_directory(settings.data_dir) / "control.sock"
        control_plane = await stack.enter_async_context(_serving(plane.app, socket_path))
        gateway = _gateway(plane, socket_path, certificate)
        door = bind_local_door(settings.data_dir)
        stack.callback(local_socket_path(settings.data_dir).unlink, missing_ok=True)
        serving = asyncio.create_task(gateway.serve([*listeners, door]))
        stack.push_async_callback(_close, gateway, serving)
        # First, or the gateway would wait for streams that do not end by themselves.
        stack.callback(plane.engine.leases.close)
        stack.callback(plane.mcp.close)
        yield Running(plane, host, control_plane)


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@contextlib.asynccontextmanager
async def _serving(app: FastAPI, socket_path: Path) -> AsyncGenerator[asyncio.Task[None]]:
    """The control plane in uvicorn, on a socket that only the gateway uses; yields its task."""
    socket_path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(socket_path))
    socket_path.chmod(0o600)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", timeout_keep_alive=60, server_header=False, ws="none"
    )
    server = _Uvicorn(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await _started(server, running)
        yield running
    finally:
        server.should_exit = True
        await asyncio.wait({running}, timeout=_GRACE_SECONDS)
        socket_path.unlink(missing_ok=True)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to `serve`, and says when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Nothing is captured."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As inherited, then tell."""
        await super().startup(sockets)
        self.is_up.set()


async def _started(server: _Uvicorn, running: asyncio.Task[None]) -> None:
    up = asyncio.ensure_future(server.is_up.wait())
    await asyncio.wait({up, running}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    up.cancel()
    if not server.started:
        raise error("INTERNAL_ERROR", "The control plane did not start; the log says why.")


def _certificate(settings: Settings) -> ServerCertificate | None:
    """The certificate, which SIGHUP makes the server read again."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    certificate = ServerCertificate(settings.tls_cert, settings.tls_key)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloading, certificate.reload)
    return certificate


def _granted_certificate(grant: Grant, settings: Settings) -> ServerCertificate | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        certificate, key = paths_of(grant.certificate)
        return ServerCertificate(certificate, key, named=(settings.tls_cert, settings.tls_key))
    finally:
        closed(grant.certificate)


def _gateway(plane: ControlPlane, control_plane: Path, certificate: ServerCertificate | None) -> Gateway:
    settings = plane.settings
    return Gateway(
        control_plane=control_plane,
        directory=plane.directory,
        ends=plane.directory,
        tokens=plane.tokens,
        audit=plane.engine.audit,
        settings=GatewaySettings(
            allowed_hosts=settings.served_hosts,
            domain=settings.domain,
            previews_need_token=settings.preview_access is PreviewAccess.TOKEN,
            # Of connections that are not encrypted here, as something in front may have done that.
            public_scheme=settings.public_scheme if settings.public_url else "http",
            max_control_body_bytes=settings.max_body_bytes,
        ),
        certificate=certificate,
    )


async def _close(gateway: Gateway, serving: asyncio.Task[None]) -> None:
    await gateway.close(_GRACE_SECONDS)
    await asyncio.wait({serving}, timeout=_GRACE_SECONDS)
