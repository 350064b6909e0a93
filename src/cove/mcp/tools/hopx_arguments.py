"""What several tools take: sandboxes, code, seconds, variables."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cove.mcp.output import DEFAULT_CHARACTERS, MAX_CHARACTERS, MIN_CHARACTERS
from cove.mcp.tool import Arguments
from cove.mcp.tools.hopx_older_names import current_names
from cove.models.environment import EnvVars
from cove.models.execution import LANGUAGE_ALIASES, MAX_CODE_BYTES, MAX_EXECUTION_SECONDS
from cove.models.identifiers import is_sandbox_id
from cove.models.sandboxes import MAX_TIMEOUT_SECONDS

MAX_WAITED_SECONDS = 300
_PROCESS_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


def _not_a_flag(value: Any) -> Any:
    """`true` would otherwise count as 1."""
    if isinstance(value, bool):
        raise ValueError("it must be a number")  # noqa: TRY004 - pydantic tells of nothing else
    return value


def _known_language(language: str) -> str:
    if language.strip().lower() not in LANGUAGE_ALIASES:
        raise ValueError("it must be python, javascript, bash or go")
    return language


def _bounded_code(code: str) -> str:
    try:
        size = len(code.encode())
    except UnicodeEncodeError:
        raise ValueError("it holds lone surrogates, which no program can") from None
    if size > MAX_CODE_BYTES:
        raise ValueError(
            f"it is {size} bytes; at most {MAX_CODE_BYTES} can be run. Put data into files with file_write"
        )
    return code


def _sandbox_id(text: str) -> str:
    if not is_sandbox_id(text):
        raise ValueError(
            "it is not the id of a sandbox (ten digits, then eight lower-case letters or digits); "
            "create_sandbox and list_sandboxes give ids"
        )
    return text


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path cannot hold NUL")
    return path


def _process_id(text: str) -> str:
    if not _PROCESS_ID.fullmatch(text):
        raise ValueError("it is not the id of a program; execute_list_processes gives ids")
    return text


def _template(text: str) -> str:
    if not text.strip() or "/" in text or not text.isprintable() or text in (".", ".."):
        raise ValueError("it is not the name of a template; list_templates gives names")
    return text


Number = BeforeValidator(_not_a_flag)
SandboxId = Annotated[str, AfterValidator(_sandbox_id)]
Code = Annotated[str, AfterValidator(_bounded_code)]
Language = Annotated[str, AfterValidator(_known_language)]
Path = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_without_nul)]
Variables = EnvVars
WaitedSeconds = Annotated[float, Field(gt=0, le=MAX_WAITED_SECONDS), Number]
"""How long a program may take that the client waits for."""
BackgroundSeconds = Annotated[float, Field(gt=0, le=MAX_EXECUTION_SECONDS), Number]
LifetimeSeconds = Annotated[int, Field(ge=1, le=MAX_TIMEOUT_SECONDS), Number]
OutputCharacters = Annotated[int, Field(ge=MIN_CHARACTERS, le=MAX_CHARACTERS), Number]
Region = Annotated[str | None, Field(max_length=100)]
"""Where, on servers that have several."""
Template = Annotated[str, Field(max_length=200), AfterValidator(_template)]
ProcessId = Annotated[str, AfterValidator(_process_id)]
ProcessLabel = Annotated[str, Field(min_length=1, max_length=200)]

OUTPUT_CHARACTERS = DEFAULT_CHARACTERS


class InSandbox(Arguments):
    """Of tools that work inside a sandbox."""

    sandbox_id: SandboxId

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, given: Any) -> Any:
        return current_names(given, sandbox="sandbox_id")


class OfSandbox(Arguments):
    """Of tools about a sandbox as a whole, which call its id `id`."""

    id: SandboxId

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, given: Any) -> Any:
        return current_names(given, sandbox="id")
