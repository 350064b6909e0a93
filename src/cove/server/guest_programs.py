"""Programs that the control plane starts in the background of a sandbox, and asks about."""

import asyncio
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cove.models.errors import ERRORS, CoveError, error
from cove.models.processes import BackgroundProcess
from cove.server.guest_http import FAILURES, GuestAnswer, LargeBodies, ask

MAX_ANSWER_BYTES = 48 * 1024 * 1024
"""Output as JSON takes up to six times its size, and what a program displayed comes with it."""

_CALL_SECONDS = 15.0
_LARGE_AT_ONCE = 3
_MAX_MESSAGE_CHARACTERS = 500


class AgentPrograms:
    """Implements the core's `GuestPrograms` with HTTP requests over the agent's unix socket."""

    def __init__(self, *, call_seconds: float = _CALL_SECONDS, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._call_seconds = call_seconds
        self._large = LargeBodies(at_once=_LARGE_AT_ONCE, max_bytes=max_answer_bytes)

    async def start(self, socket_path: Path, program: bytes, *, owner: str) -> None:
        """Start a `BackgroundExecute`, given as JSON. Repeating it with the same execution id starts nothing.

        Raises:
            CoveError: AGENT_UNREACHABLE when it is open what became of the call; else the agent's own code.
        """
        answer = await self._ask(socket_path, "POST", "/execute/background", program, owner=owner)
        if answer.status != 200:
            raise _refusal(answer)

    async def look(
        self, socket_path: Path, execution_id: str, *, owner: str, wait_seconds: float
    ) -> BackgroundProcess | None:
        """How the program is, as soon as it has ended but after `wait_seconds` at the latest; None if unknown.

        Raises:
            CoveError: AGENT_UNREACHABLE; EXECUTION_FAILED when the answer cannot be its result.
        """
        path = f"/execute/processes/{execution_id}?wait={wait_seconds:g}"
        answer = await self._ask(socket_path, "GET", path, b"", owner=owner, extra_seconds=wait_seconds)
        if answer.oversized:
            raise error("EXECUTION_FAILED", f"The program's result is larger than {self._large.max_bytes} bytes.")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise _unreachable(f"it answered {answer.status}")
        try:
            return BackgroundProcess.model_validate_json(answer.body)
        except ValidationError:
            raise error("EXECUTION_FAILED", "The sandbox's answer is not the result of a program.") from None

    async def _ask(
        self, socket_path: Path, method: str, path: str, body: bytes, *, owner: str, extra_seconds: float = 0.0
    ) -> GuestAnswer:
        try:
            async with asyncio.timeout(self._call_seconds + extra_seconds):
                return await ask(socket_path, method, path, body, large=self._large, owner=owner)
        except FAILURES as failure:
            raise _unreachable(type(failure).__name__) from failure


def _refusal(answer: GuestAnswer) -> CoveError:
    """What the agent said, in a form that may be shown and stored; failures of its own are worth another try."""
    if not 400 <= answer.status < 500:
        return _unreachable(f"it answered {answer.status}")
    try:
        said: Any = json.loads(answer.body)
        code, message = str(said["code"]), str(said["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        code, message = "EXECUTION_FAILED", f"The sandbox answered {answer.status}."
    printable = "".join(character if character.isprintable() else " " for character in message)
    return error(code if code in ERRORS else "EXECUTION_FAILED", printable[:_MAX_MESSAGE_CHARACTERS])


def _unreachable(why: str) -> CoveError:
    return error("AGENT_UNREACHABLE", f"The sandbox's agent gave no answer about the program: {why}.")
