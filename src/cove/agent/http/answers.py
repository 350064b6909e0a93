"""Successful answers."""

import json
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cove.models.base import Contract

JSON_TYPE = "application/json"

_SLICE_BYTES = 256 * 1024


def model_answer(model: Contract, *, exclude: set[str] | None = None) -> Response:
    """`model` as JSON, without the fields in `exclude`."""
    body = model_bytes(model, exclude=exclude)
    return (Response if len(body) <= _SLICE_BYTES else _Sliced)(body, media_type=JSON_TYPE)


def json_answer(value: dict[str, Any]) -> Response:
    """`value` as JSON."""
    return Response(json.dumps(value, allow_nan=False).encode("ascii"), media_type=JSON_TYPE)


class _Sliced(Response):
    """A long answer, of which no more is copied for the connection than the client is about to take."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        for start in range(0, len(body), _SLICE_BYTES):
            end = start + _SLICE_BYTES
            await send({"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)})


def model_bytes(model: Contract, *, exclude: set[str] | None = None, exclude_none: bool = False) -> bytes:
    """`model` as JSON text."""
    try:
        return to_json(model, by_alias=True, exclude=exclude, exclude_none=exclude_none)
    except (PydanticSerializationError, UnicodeEncodeError):
        # A program can put text into its result that UTF-8 cannot carry; that is no reason to refuse the result.
        fields = model.model_dump(by_alias=True, exclude=exclude, exclude_none=exclude_none)
        return json.dumps(_portable(fields), allow_nan=False).encode("ascii")


def _portable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case dict():
            return {_portable(str(key)): _portable(item) for key, item in value.items()}  # pyright: ignore
        case list() | tuple():
            return [_portable(item) for item in value]  # pyright: ignore
        case bool() | int() | None:
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else None
        case _:
            return str(value)
