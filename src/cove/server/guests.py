"""The calls that the control plane makes into a sandbox: for members of the warm pool."""

import asyncio
import json
import re
from collections.abc import Mapping

from cove.models.errors import CoveError, error
from cove.models.hosts import SandboxRecord

_CALL_SECONDS = 5.0
_MAX_HEAD_BYTES = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})( [^\r\n]*)?\r\n")


class AgentEnvironment:
    """Implements the core's `GuestEnvironment` with HTTP requests over the agent's unix socket.

    The agent is not trusted: of its answer only the status is looked at, within bounds of size and time.
    """

    def __init__(self, *, call_seconds: float = _CALL_SECONDS) -> None:
        self._call_seconds = call_seconds

    async def merge(self, record: SandboxRecord, env_vars: Mapping[str, str]) -> None:
        """Add to the sandbox's environment (`PATCH /env`).

        Raises:
            CoveError: AGENT_UNREACHABLE.
        """
        await self._call(record, "PATCH", "/env", json.dumps({"env_vars": dict(env_vars)}).encode())

    async def rehearse(self, record: SandboxRecord) -> None:
        """Have the sandbox touch what its first execution will (`POST /rehearsal`).

        Raises:
            CoveError: AGENT_UNREACHABLE.
        """
        await self._call(record, "POST", "/rehearsal", b"")

    async def _call(self, record: SandboxRecord, method: str, path: str, body: bytes) -> None:
        try:
            async with asyncio.timeout(self._call_seconds):
                status = await _request(record.socket_path, method, path, body)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as failure:
            raise _unreachable(record, path, type(failure).__name__) from failure
        if status != 200:
            raise _unreachable(record, path, f"it answered {status}")


async def _request(socket_path: str, method: str, path: str, body: bytes) -> int:
    reader, writer = await asyncio.open_unix_connection(socket_path, limit=_MAX_HEAD_BYTES)
    try:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        line = _STATUS_LINE.match(await reader.readuntil(b"\r\n\r\n"))
        return int(line.group(1)) if line else 0
    finally:
        writer.transport.abort()


def _unreachable(record: SandboxRecord, path: str, why: str) -> CoveError:
    return error("AGENT_UNREACHABLE", f"The agent of {record.sandbox_id} did not answer {path}: {why}.")
