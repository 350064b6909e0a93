"""Messages between the namespace driver, the fork server and a new sandbox.

Fork server channel (SOCK_SEQPACKET, one JSON object a packet):
    server -> driver  {"ready": true, "threads": 1, "failed": ["module", ...]}   once, after the imports
    driver -> server  {"spawn": "<sandbox id>"} with two descriptors: listening socket, birth channel; with
                      "uid_map" and "gid_map", if it is the server who may write these (user_namespaces(7))
    server -> driver  {"spawned": "<sandbox id>"} with a pidfd, or {"error": {...}}
    driver -> server  {"hold": true}: a process that does nothing, in a user namespace without maps
    server -> driver  {"held": true} with a pidfd, or {"error": {...}}
Birth channel (SOCK_STREAM, one JSON object a line), from the new sandbox to the driver:
    driver -> sandbox `Birth` as JSON, with the descriptors of the counters that it names, and the mounts of the disk
                      and of the layers where there are such; sent when the id maps of the new process are in place
    driver -> sandbox `LIMITS_IN_FORCE`, one byte, when the process is in its cgroups
    sandbox -> driver {"ok": true} when the agent is about to accept, or {"error": {...}}
An error is {"step": what was being done, "errno": number, "message": text}.
"""

import json
import socket
from array import array
from typing import Any, Final

MAX_PACKET: Final = 64 * 1024
MAX_BIRTH: Final = 4 * 1024 * 1024
MAX_DESCRIPTORS: Final = 4
MAX_BIRTH_DESCRIPTORS: Final = 64
LIMITS_IN_FORCE: Final = b"!"

# Where the launcher puts things in the fork server's own root; a sandbox has an empty directory there.
STAGE: Final = "/mnt"
LAYERS: Final = f"{STAGE}/layers"
DISK: Final = f"{STAGE}/disk"
ROOT: Final = f"{STAGE}/root"
DEVICES: Final = f"{STAGE}/dev"
EMPTY: Final = f"{STAGE}/empty"
"""A read-only directory with nothing in it."""

USER_ID: Final = 1000


def send(channel: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """Send one packet, with descriptors."""
    socket.send_fds(channel, [json.dumps(message).encode()], descriptors or [])


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Receive one packet; (None, []) at the end of the channel."""
    data, descriptors = receive_raw(channel, MAX_PACKET)
    if not data:
        return None, descriptors
    return json.loads(data), descriptors


def receive_raw(channel: socket.socket, size: int, most: int = MAX_DESCRIPTORS) -> tuple[bytes, list[int]]:
    """Bytes and descriptors, at most `most`; all descriptors are close-on-exec."""
    space = socket.CMSG_SPACE(most * array("i").itemsize)
    data, ancillary, _, _ = channel.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, list(descriptors)


def failure(step: str, problem: BaseException) -> dict[str, Any]:
    """An error as it is put on the wire."""
    number = problem.errno if isinstance(problem, OSError) else None
    return {"error": {"step": step, "errno": number or 0, "message": str(problem)}}
