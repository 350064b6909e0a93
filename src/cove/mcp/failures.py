"""Platform errors as a model should read them: what happened, and what to do next."""

import difflib
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cove.models.errors import CoveError, definition_of

_MAX_SHOWN = 5
_MAX_NAME = 60

_NEXT_CALLS: Final = {
    "SANDBOX_NOT_FOUND": "list_sandboxes shows yours, create_sandbox makes a new one.",
    "SANDBOX_EXPIRED": "create_sandbox makes a new one.",
    "SANDBOX_DIED": "create_sandbox makes a new one; what was in this one is gone.",
    "TEMPLATE_NOT_FOUND": "list_templates shows what there is.",
    "FILE_NOT_FOUND": "file_list shows what a directory holds.",
    "DIRECTORY_NOT_FOUND": "file_list shows what a directory holds, file_mkdir makes one.",
    "PROCESS_NOT_FOUND": "execute_list_processes shows the programs in the background.",
    "AUTHENTICATION_REQUIRED": "Put a key into the configuration of this MCP server: COVE_API_KEY, or over HTTP the "
    "header `Authorization: Bearer KEY`. `cove keys create NAME` on the server makes one.",
}
"""Remedies in terms of tools, where those of the table of errors speak of REST and the command line."""


def failure_text(failure: CoveError) -> str:
    """One paragraph: the message, the remedy, the stable code."""
    again = " The same call may work later." if definition_of(failure.code).retryable else ""
    return f"{failure.message} {_remedy(failure)}".strip() + f"{again} [{failure.code}]"


def failure_fields(failure: CoveError) -> dict[str, Any]:
    """The same for programs."""
    return {
        "code": failure.code,
        "message": failure.message,
        "remedy": _remedy(failure),
        "retryable": definition_of(failure.code).retryable,
    }


def arguments_text(tool: str, problem: ValidationError, known: Mapping[str, Any]) -> str:
    """Which arguments are wrong and how, without repeating what was sent.

    Args:
        known: the arguments that there are, with the JSON schema of each.
    """
    found = problem.errors(include_url=False, include_input=False)
    lines = [_line(detail, known) for detail in found[:_MAX_SHOWN]]
    more = f"; and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else ""
    return f"{tool} was not called, its arguments are wrong. " + "; ".join(lines) + f"{more} [INVALID_REQUEST]"


def _remedy(failure: CoveError) -> str:
    # What is found by name has tools of its own, which its remedies name.
    return failure.remedy if failure.details.get("names_tools") else _NEXT_CALLS.get(failure.code, failure.remedy)


def _line(detail: ErrorDetails, known: Mapping[str, Any]) -> str:
    parts = [str(part)[:_MAX_NAME] for part in detail["loc"]]
    text = detail["msg"].removeprefix("Value error, ")
    if not parts:
        return text
    if detail["type"] == "extra_forbidden":
        text = _no_such(parts[0], known)
    elif detail["type"] == "missing":
        text = "it is required"
    elif detail["type"] != "value_error":
        text = _range(known.get(parts[0])) or text
    return f"{'.'.join(parts)}: {text}"


def _no_such(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no such argument; {hint}there are: {', '.join(known) or 'none'}"


def _range(schema: object) -> str:
    """What a number must be, from the schema that was listed; empty for what is no number."""
    if not isinstance(schema, dict):
        return ""
    rules = cast("dict[str, Any]", schema)
    bounds = [
        f"{words} {_plain(rules[key])}"
        for key, words in (("exclusiveMinimum", "more than"), ("minimum", "at least"), ("maximum", "at most"))
        if key in rules
    ]
    return f"it must be a number, {' and '.join(bounds)}" if bounds else ""


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
