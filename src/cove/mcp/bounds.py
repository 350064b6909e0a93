"""Bounds of what is listed to a model, beside those of what programs print."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from cove.models.errors import error

LISTED_CHARACTERS = 40_000
_OBJECT_CHARACTERS = 40_000
T = TypeVar("T", bound=Mapping[str, Any])


def fitting(rows: Iterable[T], limit: int = LISTED_CHARACTERS) -> list[T]:
    """The first of them, as many as take `limit` characters together; always one."""
    kept: list[T] = []
    for row in rows:
        limit -= len(json.dumps(row))
        if kept and limit < 0:
            break
        kept.append(row)
    return kept


def bounded(fields: dict[str, Any], what: str) -> dict[str, Any]:
    """`fields`, which a sandbox has sent.

    Raises:
        CoveError: BAD_RESPONSE when they are too many for anybody to read.
    """
    if len(json.dumps(fields)) > _OBJECT_CHARACTERS:
        raise error("BAD_RESPONSE", f"The sandbox answered more than {_OBJECT_CHARACTERS} characters of {what}.")
    return fields
