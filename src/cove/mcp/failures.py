"""Platform errors as a model should read them: what happened, and what to do next."""

from collections.abc import Sequence
from typing import Any, cast

from pydantic import ValidationError

from cove.models.errors import CoveError, definition_of

_MAX_SHOWN = 5


def failure_text(failure: CoveError) -> str:
    """One paragraph: the message, the remedy, the stable code."""
    again = " The same call may work later." if definition_of(failure.code).retryable else ""
    return f"{failure.message} {failure.remedy}".strip() + f"{again} [{failure.code}]"


def failure_fields(failure: CoveError) -> dict[str, Any]:
    """The same for programs."""
    return {
        "code": failure.code,
        "message": failure.message,
        "remedy": failure.remedy,
        "retryable": definition_of(failure.code).retryable,
    }


def arguments_text(tool: str, problem: ValidationError, known: Sequence[str]) -> str:
    """Which arguments are wrong and how, without repeating what was sent."""
    lines: list[str] = []
    for found in problem.errors(include_url=False, include_input=False)[:_MAX_SHOWN]:
        place = ".".join(str(part) for part in cast("tuple[Any, ...]", found["loc"]))
        text = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            text = f"there is no such argument; there are: {', '.join(known)}"
        lines.append(f"{place}: {text}" if place else text)
    return f"{tool} was not called, its arguments are wrong. " + "; ".join(lines) + " [INVALID_REQUEST]"
