"""Successful answers."""

import json
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from starlette.responses import Response

from cove.models.base import Contract

JSON_TYPE = "application/json"


def model_answer(model: Contract, *, exclude: set[str] | None = None) -> Response:
    """`model` as JSON, without the fields in `exclude`."""
    return Response(model_bytes(model, exclude=exclude), media_type=JSON_TYPE)


def json_answer(value: dict[str, Any]) -> Response:
    """`value` as JSON."""
    return Response(json.dumps(value, allow_nan=False).encode("ascii"), media_type=JSON_TYPE)


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
