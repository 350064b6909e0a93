"""Errors as the agent's clients want them: one body that all of them can read."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from cove.agent.clock import timestamp
from cove.models.errors import CoveError, definition_of, error

_SHOWN_ERRORS = 5
_SHOWN_CHARACTERS = 300


def error_body(failure: CoveError, *, request_id: str, path: str) -> bytes:
    """JSON for `failure`; `error` is text and `message` repeats it, because clients read either.

    `path` is used where the error does not name a file of its own.
    """
    text = error_text(failure)
    body = {
        "error": text,
        "message": text,
        "code": failure.code,
        "remedy": failure.remedy,
        "request_id": request_id,
        "timestamp": timestamp(),
        "path": failure.details.get("path", path),
        "details": failure.details,
    }
    # ASCII escapes carry what UTF-8 cannot: lone surrogates in the names of files.
    return json.dumps(body, default=str).encode("ascii")


def status_of(failure: CoveError) -> int:
    """HTTP status for `failure`."""
    return definition_of(failure.code).status


def invalid_body(failure: ValidationError) -> CoveError:
    """The error for a body that does not fit its model, naming the fields and what to do."""
    problems: Sequence[Any] = failure.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        return error("INVALID_JSON", f"The body is not valid JSON: {_shortened(first['msg'])}.")
    if first["type"] in ("model_type", "model_attributes_type", "dict_type") and not first["loc"]:
        return error("INVALID_JSON", "The body is not a JSON object.")
    missing = [_field(problem) for problem in problems if problem["type"] == "missing"]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing[:_SHOWN_ERRORS])
        return error("MISSING_PARAMETER", f"The body lacks {names}.", remedy=f"Send {names}.", field=missing[0])
    field = _field(first)
    return error(
        "INVALID_REQUEST",
        "; ".join(_problems(problems)) + ".",
        remedy=f"Correct `{field}` and send the request again.",
        field=field,
    )


def error_text(failure: CoveError) -> str:
    """What happened and what to do, in one text."""
    if not failure.remedy:
        return failure.message
    stop = "" if failure.message.endswith((".", "!", "?")) else "."
    return f"{failure.message}{stop} {failure.remedy}"


def _problems(problems: Sequence[Any]) -> Iterator[str]:
    for problem in problems[:_SHOWN_ERRORS]:
        yield f"`{_field(problem)}`: {_shortened(problem['msg'])}"


def _field(problem: Any) -> str:
    if not problem["loc"]:
        return "type" if problem["type"].startswith("union_tag") else "body"
    return _shortened(".".join(str(part) for part in problem["loc"]))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
