"""The option `--secret` that several commands have: values come from variables, files and the vault, never from the
command line, which every process of the machine can read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cove.models.errors import CoveError, error

if TYPE_CHECKING:
    from cove.models.secrets import SandboxSecret

Secrets = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="NAME[=SOURCE][@HOST,...]",
        help="A variable that holds a placeholder inside, which becomes the value in requests over TLS to these hosts;"
        " SOURCE is env:VARIABLE (of this command; else the one called NAME), file:PATH or vault:SECRET, which knows"
        " its hosts; may be repeated.",
        show_default=False,
    ),
]

_HELP = "Write --secret NAME@HOST, NAME=env:VARIABLE@HOST, NAME=file:PATH@HOST or NAME=vault:SECRET."


def secrets_asked(options: list[str] | None) -> dict[str, SandboxSecret] | None:
    """What the options ask for; None when they ask for nothing.

    Raises:
        CoveError: INVALID_REQUEST, FILE_NOT_FOUND.
    """
    found: dict[str, SandboxSecret] = {}
    for option in options or ():
        place, _, hosts = option.rpartition("@") if "@" in option else (option, "", "")
        name, _, source = place.partition("=")
        if name in found:
            raise error("INVALID_REQUEST", f"--secret {name[:80]!r} is given twice.")
        found[name] = _secret(name, source or f"env:{name}", hosts)
    return found or None


def read_value(path: Path | None, *, prompt: str) -> str:
    """A value from a file, from what is piped in, or from whoever sits at the terminal, without showing it. One line
    break at its end does not belong to it.

    Raises:
        CoveError: FILE_NOT_FOUND, INVALID_REQUEST.
    """
    if path is None and sys.stdin.isatty():
        return str(typer.prompt(prompt, hide_input=True, err=True))
    try:
        raw = sys.stdin.buffer.read() if path is None else path.read_bytes()
        return raw.decode("ascii").removesuffix("\n").removesuffix("\r")
    except OSError as problem:
        raise error("FILE_NOT_FOUND", f"Cannot read {path}: {problem.strerror}.") from problem
    except UnicodeDecodeError:
        raise error("INVALID_REQUEST", "A secret holds ASCII characters only.") from None


def _secret(name: str, source: str, hosts: str) -> SandboxSecret:
    from pydantic import ValidationError

    from cove.models.secrets import SandboxSecret

    kind, _, where = source.partition(":")
    given = {"hosts": tuple(hosts.split(",")) if hosts else None}
    try:
        if kind == "vault":
            return SandboxSecret.model_validate({**given, "from_vault": where})
        return SandboxSecret.model_validate({**given, "value": _value(name, kind, where)})
    except ValidationError as problem:
        first = problem.errors(include_input=False)[0]
        what = first["msg"].removeprefix("Value error, ")
        raise error("INVALID_REQUEST", f"--secret {name[:80]!r}: {what}.", remedy=_HELP) from None


def _value(name: str, kind: str, where: str) -> str:
    if kind == "file":
        return read_value(Path(where).expanduser(), prompt=name)
    if kind != "env":
        # Not repeated: it may be the value itself.
        raise _no_source(name, "what follows '=' is no source")
    value = os.environ.get(where)
    if value is None:
        raise _no_source(name, f"there is no variable {where[:80]!r}")
    return value


def _no_source(name: str, what: str) -> CoveError:
    return error("INVALID_REQUEST", f"--secret {name[:80]!r}: {what}.", remedy=_HELP)
