"""Executions as lines: one JSON object each, the output as it comes and the result at the end."""

import json
from collections.abc import Mapping
from typing import Final

from cove.agent.http.answers import model_bytes
from cove.agent.http.stream_text import StreamText
from cove.models.execution import ExecutionResult

MEDIA_TYPE: Final = "application/x-ndjson"


class OutputLines:
    """Turns pieces of both streams into lines. Joined, the texts of a stream are what the result holds for it."""

    def __init__(self) -> None:
        self._texts = {"stdout": StreamText(), "stderr": StreamText()}

    def piece(self, stream: str, piece: bytes) -> bytes:
        """The line for a piece of output; empty while a character is not complete."""
        text = self._texts[stream].feed(piece)
        return line({"type": stream, "data": text}) if text else b""

    def ending(self, result: ExecutionResult) -> list[bytes]:
        """What is left to say of each stream (marks of truncation, notes of ours), and the result."""
        lines: list[bytes] = []
        for stream, whole in (("stdout", result.stdout), ("stderr", result.stderr)):
            rest = self._texts[stream].missing_of(whole)
            if rest:
                lines.append(line({"type": stream, "data": rest}))
        return [*lines, b'{"type":"result",' + model_bytes(result).removeprefix(b"{") + b"\n"]


def line(event: Mapping[str, object]) -> bytes:
    """One event."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
