"""JSON in the messages of WebSockets."""

import json
from typing import Any, cast

from cove.agent.http.answers import model_bytes
from cove.agent.http.errors import error_text
from cove.agent.http.websocket import WebSocket
from cove.models.base import Contract
from cove.models.errors import CoveError
from cove.models.frames import ErrorFrame

ENDING_PATIENCE = 0.25
"""Seconds, for the last frames: a client that loses one of them never stops waiting."""


def encoded(frame: Contract) -> bytes:
    """`frame` as the text of a message; what is not set is left out."""
    return model_bytes(frame, exclude_none=True)


def error_frame(failure: CoveError) -> bytes:
    """The message that tells of `failure`."""
    text = error_text(failure)
    return encoded(ErrorFrame(code=failure.code, message=failure.message, remedy=failure.remedy, error=text))


async def receive_object(socket: WebSocket) -> dict[str, Any]:
    """The next message that is a JSON object; all others are skipped (contract §4.4).

    Raises:
        Disconnected: there will be none.
    """
    while True:
        try:
            parsed = json.loads(await socket.receive())
        except (ValueError, RecursionError):
            continue
        if isinstance(parsed, dict):
            return cast("dict[str, Any]", parsed)
