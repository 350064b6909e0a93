"""The server as the child of its supervisor: it gives up all privileges, and hears what the supervisor tells."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from cove.hostd.names import SOCKET_NAME
from cove.linux.calls import libc_call
from cove.linux.privileges import drop_bounding_set, drop_capabilities, forbid_new_privileges, last_capability
from cove.models.errors import CoveError, error
from cove.server.local_address import server_directory
from cove.server.own_view import see_own_program
from cove.server.server_user import ServerUser
from cove.server.supervising import Supervised, failure_in, receive

_PR_SET_PDEATHSIG: Final = 1
_READY_SECONDS: Final = 120.0
_log = structlog.get_logger(__name__)


class HostDaemon(Protocol):
    """The host daemon, whoever starts it: `HostProcess`, or `SupervisedHost`."""

    socket_path: Path

    async def start(self) -> None:
        """Return when it answers."""
        ...

    async def close(self) -> None:
        """It is needed no more."""
        ...


def become(supervised: Supervised, data_dir: Path) -> None:
    """Become the server's user: no group but its own, no capability in any set, none ever again; and die with the
    supervisor.

    Raises:
        CoveError: INVALID_REQUEST: this process may not, or that user cannot reach the program or the data directory.
    """
    user = supervised.user
    see_own_program(user.uid, user.gid)
    try:
        os.setsid()
        os.chdir("/")
        drop_bounding_set(last_capability())
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        drop_capabilities()
        forbid_new_privileges()
        libc_call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except OSError as problem:
        raise error(
            "INVALID_REQUEST",
            f"The server cannot become user {user.name}: {problem.strerror}.",
            remedy="Give it CAP_SETUID, CAP_SETGID and CAP_SETPCAP, or serve as root: --user root.",
        ) from problem
    if os.getppid() != supervised.supervisor:
        raise SystemExit(1)
    os.umask(0o077)
    os.environ["HOME"] = user.home
    _expect_reachable(data_dir, user)


def _expect_reachable(data_dir: Path, user: ServerUser) -> None:
    if not os.access(server_directory(data_dir), os.R_OK | os.W_OK | os.X_OK):
        raise error(
            "INVALID_REQUEST",
            f"User {user.name}, who is to be the server, cannot reach the data directory {data_dir}.",
            remedy=f"Let everybody pass through the directories above it (chmod o+x {data_dir.parent}), choose another"
            " with --data-dir, or serve as root: --user root.",
        )


class SupervisedHost:
    """The host daemon that the supervisor starts, watches and ends."""

    def __init__(self, data_dir: Path, link: "SupervisorLink") -> None:
        self.socket_path = data_dir / "run" / SOCKET_NAME
        self._link = link

    async def start(self) -> None:
        """Return when it answers.

        Raises:
            CoveError: HOST_UNAVAILABLE.
        """
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._link.host_ready()
        except TimeoutError as problem:
            raise error("HOST_UNAVAILABLE", "The host daemon did not start in time.") from problem

    async def close(self) -> None:
        """The supervisor ends it when this process has ended."""


class SupervisorLink:
    """What the supervisor tells while the server runs. Make it in the server's event loop."""

    def __init__(self, link: socket.socket, *, on_certificate: Callable[[Sequence[int]], None] | None = None) -> None:
        """`on_certificate` gets descriptors of a new certificate and key, which are closed after it."""
        self._link = link
        self._on_certificate = on_certificate
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost = asyncio.Event()
        link.setblocking(False)
        asyncio.get_running_loop().add_reader(link, self._hear)

    async def host_ready(self) -> None:
        """
        Raises:
            CoveError: the host daemon did not start.
        """
        await asyncio.shield(self._ready)

    async def lost(self) -> None:
        """Return when there is no supervisor any more."""
        await self._lost.wait()

    def close(self) -> None:
        """Hear no more."""
        asyncio.get_running_loop().remove_reader(self._link)
        self._ready.cancel()
        self._link.close()

    def _hear(self) -> None:
        try:
            message, descriptors = receive(self._link)
        except BlockingIOError:
            return
        except (OSError, EOFError):
            self._lost.set()
            asyncio.get_running_loop().remove_reader(self._link)
            return
        try:
            self._heed(message, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _heed(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        failure = failure_in(message)
        if "log" in message:
            _log.warning(message["log"], **message["facts"])
        elif "certificate" in message and self._on_certificate is not None:
            self._on_certificate(descriptors)
        elif self._ready.done():
            return
        elif failure is not None:
            self._ready.set_exception(failure)
        elif "ready" in message:
            self._ready.set_result(None)


def paths_of(descriptors: Sequence[int]) -> tuple[Path, ...]:
    """Names under which this process can open what these hold."""
    return tuple(Path(f"/proc/self/fd/{descriptor}") for descriptor in descriptors)


def reloading(reload: Callable[[], None]) -> None:
    """Read a certificate again, and say what came of it."""
    try:
        reload()
    except CoveError as problem:
        _log.error("certificate not reloaded", reason=str(problem))
    else:
        _log.info("certificate reloaded")


def closed(descriptors: Sequence[int]) -> None:
    """Close them all."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
