"""A stream of events: newline-delimited JSON, as `POST /execute/events` answers."""

from typing import Any, Literal, cast

from cove.models.base import Contract
from cove.models.errors import CoveError, definition_of, error
from cove.sdk._failures import parse_fields, parse_object
from cove.sdk._results import Execution

_MAX_LINE_BYTES = 64 * 1024 * 1024
_MAX_TEXT = 4000


class OutputEvent(Contract):
    """A piece of what a program printed, as soon as it was printed."""

    type: Literal["stdout", "stderr"]
    data: str


class ResultEvent(Contract):
    """The program has ended. The last event."""

    type: Literal["result"] = "result"
    result: Execution


ExecutionEvent = OutputEvent | ResultEvent


class Events:
    """Lines out of pieces of bytes, and events out of lines."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes) -> list[ExecutionEvent]:
        """The events that `piece` completes; lines of a type that this version does not know are left out.

        Raises:
            CoveError: the stream says that the platform failed, or is not one of events.
        """
        *lines, rest = piece.split(b"\n")
        if not lines:
            self._hold(rest)
            return []
        lines[0] = bytes(self._held) + lines[0]
        self._held.clear()
        self._hold(rest)
        return [event for line in lines if line.strip() and (event := event_of(parse_object(line))) is not None]

    def _hold(self, data: bytes) -> None:
        if len(self._held) + len(data) > _MAX_LINE_BYTES:
            raise error("REQUEST_TOO_LARGE", f"The sandbox sent an event of more than {_MAX_LINE_BYTES} bytes.")
        self._held += data


def event_of(fields: dict[str, Any]) -> ExecutionEvent | None:
    """One event; None for a type that this version does not know.

    Raises:
        CoveError: it is an error of the platform, or not well formed.
    """
    kind = fields.get("type")
    if kind in ("stdout", "stderr"):
        return parse_fields(OutputEvent, fields)
    if kind == "result":
        return ResultEvent(result=parse_fields(Execution, fields))
    if kind == "error":
        raise failure_of_event(fields)
    return None


def failure_of_event(fields: dict[str, Any]) -> CoveError:
    """The exception for an error that came in a stream."""
    code, message, remedy = (str(fields.get(name) or "")[:_MAX_TEXT] for name in ("code", "message", "remedy"))
    details: object = fields.get("details")
    known = definition_of(code)
    return known.exception(
        code or "INTERNAL_ERROR",
        message or str(fields.get("error") or "The agent failed.")[:_MAX_TEXT],
        remedy=remedy,
        details=cast(dict[str, Any], details) if isinstance(details, dict) else None,
    )


def broke_off() -> CoveError:
    """The stream ended before the program did."""
    return error(
        "NETWORK_ERROR",
        "The sandbox's answer ended before the program did.",
        remedy="Does the sandbox still run (`get_info`)? The program was not started a second time.",
        sent=True,
    )
