"""The server that an assistant starts when there is none, and that is gone when the last assistant is.

A program of its own, `python -m cove.server.on_demand`: it leaves its parent at once, so that it outlives the
assistant that came first, and tells through a pipe what became of its start.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket

    from cove.core.client_leases import ClientLeases
    from cove.models.errors import CoveError
    from cove.server.settings import Settings
    from cove.server.supervised import HostDaemon, Supervised
    from cove.server.supervising import Grant

FIRST_LEASE_SECONDS: Final = 60.0
IDLE_SECONDS: Final = 5.0
_CLAIM_SECONDS: Final = 40.0
_CLAIM_PAUSE: Final = 0.05


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="cove.server.on_demand", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int, required=True, help="gets one line of JSON when the start is over")
    arguments = parser.parse_args()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    _run(arguments.data_dir, arguments.ready_fd)


def _run(data_dir: Path, ready: int) -> None:
    from cove.models.errors import CoveError

    def tell(failure: "CoveError | None" = None) -> None:
        _tell(ready, failure)

    try:
        supervised = _divided(ready)
        import uvloop

        from cove.server.logs import configure_logging

        settings = settings_on_demand(data_dir)
        configure_logging(settings)
        if supervised is None:
            uvloop.run(serve_on_demand(settings, on_ready=tell))
        elif (grant := _granted(supervised, settings)) is not None:
            uvloop.run(serve_supervised(settings, supervised, grant, on_ready=tell))
        else:
            tell()
    except CoveError as failure:
        tell(failure)
        raise SystemExit(f"cove: the local server ends: {failure}") from failure


def _divided(ready: int) -> "Supervised | None":
    """As `cove serve`: root's server becomes a user of its own, beneath a supervisor."""
    from cove.server.server_user import VARIABLE, server_user

    user = server_user(os.environ.get(VARIABLE))
    if user is None:
        return None
    from cove.server.supervising import divide

    return divide(user, childs=[ready])


def _granted(supervised: "Supervised", settings: "Settings") -> "Grant | None":
    """What the supervisor has made ready, this process being the server's user from then on; None when another server
    has come first.

    Raises:
        CoveError: see `serve_on_demand`.
    """
    from cove.models.errors import CoveError
    from cove.server.claiming import ON_DEMAND
    from cove.server.host_options import HostOptions
    from cove.server.local_address import living_server, log_path
    from cove.server.supervised import become
    from cove.server.supervising import Plan

    plan = Plan(
        data_dir=str(settings.data_dir),
        host=settings.host,
        port=settings.port,
        daemon=HostOptions.of(settings, ends_with_server=True),
        role=ON_DEMAND,
        log=str(log_path(settings.data_dir)),
    )
    last = time.monotonic() + _CLAIM_SECONDS
    while True:
        try:
            grant = supervised.ask(plan)
            break
        except CoveError as problem:
            if living_server(settings.data_dir) is not None:
                return None
            if problem.code != "CONFLICT" or time.monotonic() > last:
                raise
        time.sleep(_CLAIM_PAUSE)
    become(supervised, settings.data_dir)
    return grant


def settings_on_demand(data_dir: Path) -> "Settings":
    """As the variables `COVE_...` say, but for what belongs to a port: it is a free one of the loopback address, for
    previews; all else needs a key there, and the only one that is made is in `run/server/local.json`.

    Raises:
        CoveError: INVALID_REQUEST for a variable that does not fit.
    """
    import pydantic

    from cove.models.errors import error
    from cove.models.limits import MUST_HOLD
    from cove.server.settings import Settings

    local: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "public_url": None, "dev": False}
    local |= dict.fromkeys(("domain", "tls_cert", "tls_key"))
    local |= {"request_rate": 0, "create_rate": 0, "log_format": "json"}
    # It is its user's own machine and code: what cannot be enforced is said, with each sandbox.
    local |= {"allow_unenforced": tuple(MUST_HOLD)}
    try:
        return Settings(data_dir=data_dir, **local)
    except pydantic.ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        raise error("INVALID_REQUEST", f"COVE_{name}: {first['msg'].removeprefix('Value error, ')}.") from None


async def serve_on_demand(settings: "Settings", *, on_ready: Callable[[], None]) -> None:
    """Serve until no client lease has been open for a while, or SIGTERM or SIGINT. Nothing outlives this process,
    however it ends. Returns at once when another server has come first.

    Raises:
        CoveError: the host daemon does not start, the store cannot be opened, the data directory stays taken.
    """
    from cove.server.host_options import HostOptions
    from cove.server.host_process import HostProcess

    async with contextlib.AsyncExitStack() as stack:
        if not await _claimed(stack, settings.data_dir):
            on_ready()
            return
        daemon = HostProcess(settings.data_dir, HostOptions.of(settings, ends_with_server=True))
        stack.push_async_callback(daemon.close)
        await _side_by_side(stack, daemon, settings.pool_templates)
        from cove.server.bounded_log import keep_short
        from cove.server.listening import bind
        from cove.server.local_address import log_path

        shortening = asyncio.create_task(keep_short(log_path(settings.data_dir)))
        stack.push_async_callback(_cancelled, shortening)
        await _serve(stack, settings, daemon, bind(settings.host, settings.port), on_ready)


async def serve_supervised(
    settings: "Settings", supervised: "Supervised", grant: "Grant", *, on_ready: Callable[[], None]
) -> None:
    """The same beneath a supervisor, who has the host daemon.

    Raises:
        CoveError: the host daemon does not start, the store cannot be opened.
    """
    from cove.server.supervised import SupervisedHost, SupervisorLink

    async with contextlib.AsyncExitStack() as stack:
        link = stack.enter_context(contextlib.closing(SupervisorLink(supervised.link)))
        daemon = SupervisedHost(settings.data_dir, link)
        await _side_by_side(stack, daemon, settings.pool_templates)
        await _serve(stack, settings, daemon, grant.listener, on_ready, link.lost)


async def _side_by_side(stack: contextlib.AsyncExitStack, daemon: "HostDaemon", templates: Sequence[str]) -> None:
    """The daemon starts, and then its warm processes, while this process imports what it needs itself."""
    starting = asyncio.create_task(daemon.start())
    stack.push_async_callback(_cancelled, asyncio.create_task(_warm(starting, daemon.socket_path, templates)))
    try:
        await asyncio.to_thread(importlib.import_module, "cove.server.running")
    finally:
        await starting


async def _warm(starting: asyncio.Task[None], socket: Path, templates: Sequence[str]) -> None:
    """Nobody waits for it but a create that comes too early; what fails here fails again there, and is told."""
    from cove.hostd.client import RemoteHost
    from cove.models.errors import CoveError

    await asyncio.wait({starting})
    host = RemoteHost(socket)
    try:
        for template in templates:
            with contextlib.suppress(CoveError):
                await host.warm(template)
    finally:
        await host.close()


async def _serve(
    stack: contextlib.AsyncExitStack,
    settings: "Settings",
    daemon: "HostDaemon",
    listener: "socket.socket",
    on_ready: Callable[[], None],
    *ends: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    import structlog

    from cove.core.first_builds import FirstBuilds
    from cove.server.local_door import published
    from cove.server.running import everything, stop_signal

    stop = stop_signal()
    stack.callback(listener.close)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    running = await stack.enter_async_context(everything(settings, daemon, listeners=[listener]))
    plane = running.plane
    builds = FirstBuilds(running.host, plane.engine.catalog, settings.pool_templates)
    stack.push_async_callback(_cancelled, asyncio.create_task(builds.run()))
    stack.enter_context(published(settings.data_dir, plane.engine.delegated_keys, on_demand=True))
    structlog.get_logger("cove.on_demand").info("serving_on_demand", isolation=str(settings.isolation))
    on_ready()
    await running.until(stop.wait(), unused(plane.engine.leases), *(end() for end in ends))


async def unused(
    leases: "ClientLeases", *, first_seconds: float = FIRST_LEASE_SECONDS, idle_seconds: float = IDLE_SECONDS
) -> None:
    """Return when no lease has been open for `idle_seconds`; if there was none ever, after `first_seconds`."""
    patience = first_seconds
    while True:
        try:
            async with asyncio.timeout(None if leases.count else patience):
                await leases.change()
        except TimeoutError:
            return
        patience = idle_seconds


async def _claimed(stack: contextlib.AsyncExitStack, data_dir: Path) -> bool:
    """Whether the data directory is this process' now; a server that is ending there is waited for.

    Raises:
        CoveError: CONFLICT when it does not end, and does not answer either.
    """
    from cove.models.errors import CoveError
    from cove.server.claiming import ON_DEMAND, claim_server
    from cove.server.local_address import living_server

    loop = asyncio.get_running_loop()
    last = loop.time() + _CLAIM_SECONDS
    while True:
        try:
            stack.enter_context(claim_server(data_dir, role=ON_DEMAND))
            return True
        except CoveError as problem:
            if living_server(data_dir) is not None:
                return False
            if problem.code != "CONFLICT" or loop.time() > last:
                raise
        await asyncio.sleep(_CLAIM_PAUSE)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _tell(ready: int, failure: "CoveError | None") -> None:
    fields: dict[str, Any] = {"error": None}
    if failure is not None:
        fields = {"error": {"code": failure.code, "message": failure.message, "remedy": failure.remedy}}
    with contextlib.suppress(OSError):  # whoever started us has gone, which the missing lease will show
        os.write(ready, json.dumps(fields).encode()[:4000] + b"\n")
        os.close(ready)


if __name__ == "__main__":
    main()
