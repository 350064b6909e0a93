"""The host daemon as a child of `cove serve`: started, watched, started again, ended."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cove.host.claims import claimed_by
from cove.hostd.names import LOCK_NAME, SERVERS_CHILD, SOCKET_NAME
from cove.linux.clone import signal_process
from cove.linux.readiness import readable
from cove.models.errors import error
from cove.server.host_options import HostOptions

_READY_SECONDS: Final = 60.0
_END_SECONDS: Final = 30.0
_LONGEST_PAUSE: Final = 30.0

Report = Callable[[str, Mapping[str, str | float]], None]
"""Takes what goes into the log: an event and its facts."""


def to_log(event: str, facts: Mapping[str, str | float]) -> None:
    """A `Report` for a process that has a log of its own."""
    import structlog

    structlog.get_logger(__name__).warning(event, **facts)


class HostProcess:
    """Keeps one host daemon running on a data directory.

    A daemon that was started there on its own is used as it is, and not ended. One that was left by a server that
    was killed is replaced by one of this server's version and options; sandboxes live on and are adopted. The caller
    has claimed the data directory, so there is no other living server whose daemon it could be.
    """

    def __init__(
        self, data_dir: Path, options: HostOptions, *, server_uid: int | None = None, report: Report = to_log
    ) -> None:
        """
        Args:
            server_uid: the user that the server is, if that is not this process'.
        """
        self.socket_path = data_dir / "run" / SOCKET_NAME
        self._lock_path = data_dir / "run" / LOCK_NAME
        user = ["--server-uid", str(server_uid)] if server_uid is not None else []
        self._arguments = ["--data-dir", str(data_dir), *options.words(), *user]
        self._server_uid = server_uid
        self._report = report
        self._ends_with_server = options.ends_with_server
        self._tether: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when a daemon answers; nothing happens when one was started already.

        Raises:
            CoveError: HOST_UNAVAILABLE with what the daemon printed last being on stderr.
        """
        if self._watching is not None:
            return
        await self._end_leftover()
        if await self._answers():
            self._expect_open_to_server()
        else:
            await self._launch()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """End the daemon that was started here, sandboxes included unless they shall be kept."""
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await self._process.wait()
        self._cut_tether()

    def _expect_open_to_server(self) -> None:
        """A daemon that was started on its own takes calls of whom it was told to."""
        if self._server_uid is not None and self.socket_path.stat().st_uid != self._server_uid:
            raise error(
                "HOST_UNAVAILABLE",
                f"The host daemon that runs here takes no calls of the server's user ({self._server_uid}).",
                remedy=f"Start it with --server-uid {self._server_uid}, or serve as root: --user root.",
            )

    def _cut_tether(self) -> None:
        if self._tether is not None:
            os.close(self._tether)
            self._tether = None

    async def _end_leftover(self) -> None:
        leftover = claimed_by(self._lock_path, role=SERVERS_CHILD)
        if leftover is None:
            return
        try:
            self._report("hostd_left_by_dead_server", {"action": "replaced"})
            # Not SIGTERM: at a graceful end it would take its sandboxes with it.
            signal_process(leftover, signal.SIGKILL)
            async with asyncio.timeout(_END_SECONDS):
                await readable(leftover)
        except TimeoutError as problem:
            raise error("HOST_UNAVAILABLE", "The host daemon of a dead server does not end.") from problem
        finally:
            os.close(leftover)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self.socket_path)
        except OSError:
            return False
        writer.close()
        return True

    async def _launch(self) -> None:
        ready, ready_for_child = os.pipe()
        theirs = [ready_for_child]
        more: list[str] = []
        if self._ends_with_server:
            # Nobody else has the other end, so the daemon reads the end of it when this process is no more.
            self._cut_tether()
            tether_for_child, self._tether = os.pipe()
            theirs.append(tether_for_child)
            more = ["--tether-fd", str(tether_for_child)]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cove.hostd", *self._arguments, "--ready-fd", str(ready_for_child), *more),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=theirs,
                # Its own group: Ctrl-C reaches the server, which ends the daemon in order.
                start_new_session=True,
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._said_ready(ready)
        except (TimeoutError, EOFError) as problem:
            raise error(
                "HOST_UNAVAILABLE", "The host daemon did not start.", remedy="`cove doctor` looks for the reason."
            ) from problem
        finally:
            os.close(ready)

    async def _said_ready(self, descriptor: int) -> None:
        """Wait for the byte; plain readiness, since a transport would close the descriptor at a time of its own."""
        await readable(descriptor)
        if os.read(descriptor, 1) != b"!":
            raise EOFError

    async def _watch(self) -> None:
        """Start the daemon again when it has died; it adopts the sandboxes of the dead one."""
        pause = 0.1
        while True:
            await self._ended()
            self._report("hostd_died", {"restart_in_seconds": pause})
            await asyncio.sleep(pause)
            try:
                await self._launch()
                pause = 0.1
            except Exception as problem:
                self._report("hostd_restart_failed", {"problem": str(problem)})
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _ended(self) -> None:
        if self._process:
            await self._process.wait()
            return
        while await self._answers():  # noqa: ASYNC110 (another program's daemon: there is nothing to wait on)
            await asyncio.sleep(1.0)
