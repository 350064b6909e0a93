"""The driver's side of a fork server: start it, ask it for new processes, end it."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final, cast

from cove.drivers.guests import guest_environment, launcher_environment, start_failure
from cove.drivers.namespace.forkserver import protocol
from cove.drivers.namespace.launcher import Launch
from cove.host.identities import WARM_USER
from cove.linux.readiness import readable
from cove.models.errors import CoveError, error
from cove.models.templates import TemplateManifest

_READY_SECONDS: Final = 120.0
_SPAWN_SECONDS: Final = 20.0
_LONGEST_NAME: Final = 200


class WarmProcess:
    """One running fork server. `users` counts the starts that must not lose it."""

    def __init__(self, template: TemplateManifest, channel: socket.socket, failed: tuple[str, ...]) -> None:
        self.template = template
        self.failed_imports = failed
        self._channel = channel
        self._lock = asyncio.Lock()
        self._broken = False
        self.users = 0

    @property
    def usable(self) -> bool:
        """Whether it still answers, as far as is known."""
        return not self._broken

    async def spawn(
        self, sandbox_id: str, listener: socket.socket, birth: socket.socket, maps: dict[str, str] | None = None
    ) -> int:
        """Fork a new process into new namespaces.

        Args:
            maps: `uid_map` and `gid_map` of its user namespace, when it is the fork server who may write them.

        Returns:
            A pidfd of it.

        Raises:
            CoveError: SANDBOX_START_FAILED.
        """
        return await self._ask({"spawn": sandbox_id, **(maps or {})}, (listener, birth))

    async def hold(self) -> int:
        """Fork a process that does nothing, in a user namespace without maps; it ends by itself after a while.

        Returns:
            A pidfd of it.

        Raises:
            CoveError: SANDBOX_START_FAILED.
        """
        return await self._ask({"hold": True}, ())

    async def _ask(self, request: dict[str, Any], sockets: tuple[socket.socket, ...]) -> int:
        async with self._lock:
            if any(one.fileno() < 0 for one in sockets):
                raise error("SANDBOX_START_FAILED", "The start was given up while it waited for its turn.")
            try:
                protocol.send(self._channel, request, [one.fileno() for one in sockets])
                async with asyncio.timeout(_SPAWN_SECONDS):
                    message, descriptors = await receive_packet(self._channel)
            except (OSError, TimeoutError) as problem:
                self._broken = True
                raise error(
                    "SANDBOX_START_FAILED", f"The template's warm process does not answer: {problem}"
                ) from problem
            except CoveError:
                self._broken = True
                raise
        if len(descriptors) > 1:
            self._broken = True
            close_all(descriptors)
            raise error("SANDBOX_START_FAILED", "The template's warm process sent more than was asked for.")
        if message is None:
            self._broken = True
            raise error("SANDBOX_START_FAILED", "The template's warm process has ended.")
        if "error" in message:
            close_all(descriptors)
            raise start_failure(message)
        if not descriptors:
            raise error(
                "SANDBOX_START_FAILED",
                "The new process could not be handed over: no free file descriptor.",
                remedy="Raise the limit of open files of the host daemon (ulimit -n).",
            )
        return descriptors[0]

    def close(self) -> None:
        """End the fork server; sandboxes that it forked go on."""
        self._broken = True
        self._channel.close()


async def start_warm_process(
    template: TemplateManifest,
    *,
    directory: Path,
    log: Path,
    privileged: bool,
    maps: tuple[tuple[str, ...], ...] = (),
) -> WarmProcess:
    """Start a fork server for `template` and wait until it has imported everything.

    Args:
        directory: an empty directory to build its root filesystem on.
        log: file that takes what it and the launcher print.
        privileged: this process is root; otherwise everything happens in a user namespace.
        maps: see `Launch`.

    Raises:
        CoveError: SANDBOX_START_FAILED with the step that failed.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    launch = Launch(
        channel=theirs.fileno(),
        mount_point=str(directory),
        layers=template.layers,
        foreign=len(template.own_layers),
        python=template.python,
        environment=guest_environment(template),
        modules=template.preload,
        user=WARM_USER if privileged else None,
        maps=maps,
    )
    try:
        with log.open("wb") as output:
            await _launch(launch, theirs, output)
        theirs.close()
        async with asyncio.timeout(_READY_SECONDS):
            message, descriptors = await receive_packet(ours)
        close_all(descriptors)
    except BaseException as problem:
        ours.close()
        theirs.close()
        if isinstance(problem, TimeoutError):
            raise error(
                "SANDBOX_START_FAILED", f"The warm process was not ready in {_READY_SECONDS:.0f} s."
            ) from problem
        raise
    if message is None or "error" in message:
        ours.close()
        raise start_failure(message) if message else _died(log)
    if message.get("threads") != 1:
        ours.close()
        raise error(
            "SANDBOX_START_FAILED", "A module of the template starts threads at import; it cannot be preloaded."
        )
    failed: list[Any] = message["failed"] if isinstance(message.get("failed"), list) else []
    return WarmProcess(template, ours, tuple(str(name)[:_LONGEST_NAME] for name in failed))


async def _launch(launch: Launch, theirs: socket.socket, output: IO[bytes]) -> None:
    # Nothing of the caller's environment or working directory may be imported.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cove.drivers.namespace.launcher", launch.to_json()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=launcher_environment(),
        pass_fds=(theirs.fileno(),),
        cwd="/",
    )
    async with asyncio.timeout(_READY_SECONDS):
        await process.wait()


def _died(log: Path) -> CoveError:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    return error("SANDBOX_START_FAILED", f"The template's warm process ended at its start: {' | '.join(lines)}")


async def receive_packet(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """`protocol.receive` without blocking the loop, from a sender that is not trusted.

    Raises:
        CoveError: SANDBOX_START_FAILED, when it is not a message.
    """
    while True:
        try:
            data, descriptors = protocol.receive_raw(channel, protocol.MAX_PACKET)
            break
        except BlockingIOError:
            await readable(channel.fileno())
    try:
        if not data:
            return None, descriptors
        message: Any = json.loads(data)
        if isinstance(message, dict):
            return cast("dict[str, Any]", message), descriptors
    except (ValueError, RecursionError):
        pass
    close_all(descriptors)
    raise error("SANDBOX_START_FAILED", "A process of the template sent something that is not a message.")


def close_all(descriptors: Iterable[int]) -> None:
    """Descriptors come whether they are wanted or not; nobody else closes them."""
    for descriptor in descriptors:
        os.close(descriptor)
