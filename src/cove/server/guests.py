"""The calls that the control plane makes into a sandbox: for members of the warm pool."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

from cove.models.environment import MAX_TOTAL_BYTES, EnvironmentChange
from cove.models.errors import CoveError, error
from cove.models.hosts import SandboxRecord
from cove.server.guest_http import FAILURES, LargeBodies, ask

_CALL_SECONDS = 5.0
_LARGE_AT_ONCE = 4
_MAX_VARIABLES_BYTES = 8 * MAX_TOTAL_BYTES
"""Each character may take six in JSON."""


class AgentEnvironment:
    """Implements the core's `GuestEnvironment` with HTTP requests over the agent's unix socket.

    The agent is not trusted: of its answers only the status is looked at, within bounds of size and time; its
    variables are held to the bounds that a client's are.
    """

    def __init__(self, *, call_seconds: float = _CALL_SECONDS) -> None:
        self._call_seconds = call_seconds
        self._large = LargeBodies(at_once=_LARGE_AT_ONCE, max_bytes=_MAX_VARIABLES_BYTES)

    async def variables(self, socket: Path) -> Mapping[str, str]:
        """The environment that was set for the whole sandbox (`GET /env`).

        Raises:
            CoveError: AGENT_UNREACHABLE.
        """
        try:
            async with asyncio.timeout(self._call_seconds):
                answer = await ask(socket, "GET", "/env", b"", large=self._large)
            body = answer.body if answer.status == 200 else b""
            return EnvironmentChange.model_validate_json(body).env_vars
        except (*FAILURES, ValueError) as failure:
            raise error(
                "AGENT_UNREACHABLE", f"The agent did not say its variables: {type(failure).__name__}."
            ) from None

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
                answer = await ask(record.socket_path, method, path, body)
        except FAILURES as failure:
            raise _unreachable(record, path, type(failure).__name__) from failure
        if answer.status != 200:
            raise _unreachable(record, path, f"it answered {answer.status}")


def _unreachable(record: SandboxRecord, path: str, why: str) -> CoveError:
    return error("AGENT_UNREACHABLE", f"The agent of {record.sandbox_id} did not answer {path}: {why}.")
