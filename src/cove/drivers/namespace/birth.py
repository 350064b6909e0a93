"""The driver's side of a sandbox's birth: id maps, the birth message, cgroups, the answer."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cove.drivers.guests import agent_boot, host_name, start_failure
from cove.drivers.namespace.forkserver import protocol
from cove.drivers.namespace.forkserver.birth import Birth
from cove.drivers.namespace.warm import close_all, receive_packet
from cove.models.errors import error
from cove.models.hosts import SandboxSpec
from cove.models.isolation import Isolation
from cove.models.templates import TemplateManifest, is_ownable

_BIRTH_SECONDS: Final = 20.0
_LAST_WORDS_SECONDS: Final = 1.0
_NPROC_MARGIN: Final = 16


def write_id_maps(pid: int, content: str) -> None:
    """Give a new user namespace its ids (user_namespaces(7)); needs CAP_SETUID and CAP_SETGID.

    Raises:
        CoveError: SANDBOX_START_FAILED.
    """
    try:
        for name in ("uid_map", "gid_map"):
            handle = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(handle, content.encode())
            finally:
                os.close(handle)
    except OSError as problem:
        raise error("SANDBOX_START_FAILED", f"Could not write the id maps: {problem}.") from problem


def birth_of(
    spec: SandboxSpec,
    template: TemplateManifest,
    *,
    mapped: bool,
    has_disk: bool,
    has_layers: bool,
    highest_capability: int,
    ends_with_server: bool,
    counters: tuple[str, ...] = (),
) -> Birth:
    """What the new process is told."""
    return Birth(
        hostname=host_name(spec.sandbox_id),
        layer_count=len(template.layers),
        has_disk=has_disk,
        disk_mb=spec.limits.disk_mb,
        has_layers=has_layers,
        mapped=mapped,
        run_as_root=template.run_as_root,
        open_files=spec.limits.open_files,
        # Just behind the cgroup's, where there is one: that one counts what it refuses.
        processes=spec.limits.pids + (_NPROC_MARGIN if "pids" in counters else 0),
        counters=counters,
        highest_capability=highest_capability,
        owned_directories=tuple(
            name.strip("/") for name in {*template.owned_directories, *spec.owned_directories} if is_ownable(name)
        ),
        ends_with_server=ends_with_server,
        outer_uid=os.geteuid(),
        outer_gid=os.getegid(),
        boot=agent_boot(spec, template, Isolation.NAMESPACE),
    )


async def be_born(
    channel: socket.socket, birth: Birth, *, mounts: Sequence[int], attach: Callable[[], Awaitable[None]]
) -> None:
    """Tell the new process what it is; while it takes its place, put it into its cgroups; await its answer.

    Args:
        channel: our end of the birth channel, non-blocking.
        mounts: descriptors of its counters, of its disk and of its layers, as `birth` says.
        attach: puts the process into its cgroups.

    Raises:
        CoveError: SANDBOX_START_FAILED naming the step that failed, and what `attach` raises.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_BIRTH_SECONDS):
            await _send(channel, birth.model_dump_json().encode() + b"\n", mounts)
            await attach()
            await loop.sock_sendall(channel, protocol.LIMITS_IN_FORCE)
            answer, descriptors = await receive_packet(channel)
        close_all(descriptors)
    except TimeoutError as problem:
        raise error("SANDBOX_START_FAILED", f"A new sandbox was not ready in {_BIRTH_SECONDS:.0f} s.") from problem
    except OSError as problem:
        # It has answered with what went wrong, and ended, before we wrote.
        answer = await _last_words(channel, problem)
    if answer is None:
        raise error("SANDBOX_START_FAILED", "A new sandbox ended before it was ready.")
    if not answer.get("ok"):
        raise start_failure(answer)


async def _send(channel: socket.socket, message: bytes, mounts: Sequence[int]) -> None:
    """The descriptors travel with the first bytes."""
    sent = socket.send_fds(channel, [message], mounts)
    if sent < len(message):
        await asyncio.get_running_loop().sock_sendall(channel, message[sent:])


async def _last_words(channel: socket.socket, problem: OSError) -> dict[str, object] | None:
    try:
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            answer, descriptors = await receive_packet(channel)
        close_all(descriptors)
    except (OSError, TimeoutError):
        raise error("SANDBOX_START_FAILED", f"A new sandbox ended at its start: {problem}.") from problem
    return answer
