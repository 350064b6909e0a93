"""The fork server's loop: fork on request; the new process takes its place and becomes what it shall be."""

import gc
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from cove.drivers.namespace.forkserver import protocol
from cove.drivers.namespace.forkserver.birth import Birth
from cove.drivers.namespace.forkserver.enter import StepFailed, enter_sandbox
from cove.linux.clone import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    fork_into,
)
from cove.linux.memory import collapse_into_huge_pages
from cove.linux.seccomp import compile_filter
from cove.models.agent import AgentBoot

_HOLD_SECONDS = 10
_NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS

Become = Callable[[socket.socket, AgentBoot, Mapping[str, int]], NoReturn]
"""What a new process does in its sandbox, given its listening socket and the descriptors of its counters; it never
returns."""


def serve(channel: socket.socket, become: Become, failed_imports: list[str]) -> None:
    """Say that all is ready, then fork for each request until the driver closes the channel."""
    filter_program = compile_filter()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended sandboxes are reaped by the kernel
    gc.collect()
    gc.freeze()  # collections in a sandbox must not write to the shared pages of what is imported here
    collapse_into_huge_pages()
    threads = len(os.listdir("/proc/self/task"))
    protocol.send(channel, {"ready": True, "threads": threads, "failed": failed_imports})
    while True:
        message, descriptors = protocol.receive(channel)
        if message is None:
            return
        if message.get("hold"):
            _hold(channel)
        else:
            _spawn(channel, message, descriptors, filter_program, become)


def _spawn(
    channel: socket.socket, message: dict[str, Any], descriptors: list[int], filter_program: bytes, become: Become
) -> None:
    listener, birth_channel = descriptors
    try:
        pid, pidfd = fork_into(_NAMESPACES)
    except OSError as problem:
        protocol.send(channel, protocol.failure("create namespaces (clone3)", problem))
    else:
        if pid == 0:
            channel.close()
            _live(listener, birth_channel, filter_program, become)
        try:
            _write_maps(pid, message)
        except OSError as problem:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            protocol.send(channel, protocol.failure("write the id maps", problem))
        else:
            protocol.send(channel, {"spawned": message["spawn"]}, [pidfd])
        os.close(pidfd)
    os.close(listener)
    os.close(birth_channel)


def _write_maps(pid: int, message: dict[str, Any]) -> None:
    for name in ("uid_map", "gid_map"):
        if name in message:
            handle = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(handle, message[name].encode())
            finally:
                os.close(handle)


def _hold(channel: socket.socket) -> None:
    """A user namespace exists as long as a process is in it, or a descriptor of it is open."""
    try:
        pid, pidfd = fork_into(CLONE_NEWUSER)
    except OSError as problem:
        protocol.send(channel, protocol.failure("create namespaces (clone3)", problem))
        return
    if pid == 0:
        channel.close()
        signal.alarm(_HOLD_SECONDS)  # the driver ends it long before
        signal.pause()
        os._exit(0)
    protocol.send(channel, {"held": True}, [pidfd])
    os.close(pidfd)


def _live(listener: int, birth_channel: int, filter_program: bytes, become: Become) -> NoReturn:
    """The new process: wait for its birth message, take its place, become what it shall be."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    parent = socket.socket(fileno=birth_channel)
    try:
        birth, mounts, rest = _hear(parent)
        counters = {name: mounts.pop(0) for name in birth.counters}
        keep = [listener, birth_channel, *counters.values()]
        enter_sandbox(birth, mounts, filter_program, keep, lambda: _await_limits(parent, rest))
    except StepFailed as failed:
        _answer(parent, protocol.failure(failed.step, failed.cause))
        os._exit(1)
    except BaseException as problem:
        _answer(parent, protocol.failure("start", problem))
        os._exit(1)
    _answer(parent, {"ok": True})
    parent.close()
    become(socket.socket(fileno=listener), birth.boot, counters)


def _hear(parent: socket.socket) -> tuple[Birth, list[int], bytes]:
    """The birth message, the descriptors that belong to it, and what came behind the message already."""
    received = bytearray()
    mounts: list[int] = []
    while b"\n" not in received:
        data, descriptors = protocol.receive_raw(parent, protocol.MAX_PACKET, protocol.MAX_BIRTH_DESCRIPTORS)
        mounts += descriptors
        if not data or len(received) > protocol.MAX_BIRTH:
            os._exit(1)  # the driver gave up: nobody is left to tell
        received += data
    line, _, rest = bytes(received).partition(b"\n")
    return Birth.model_validate_json(line), mounts, rest


def _await_limits(parent: socket.socket, received: bytes) -> None:
    """The driver moves the process into its cgroups meanwhile: that takes a grace period of the kernel's."""
    if (received or parent.recv(1)) != protocol.LIMITS_IN_FORCE:
        raise EOFError("the driver gave up")


def _answer(parent: socket.socket, message: dict[str, Any]) -> None:
    try:
        protocol.send(parent, message)
    except OSError:
        os._exit(1)
