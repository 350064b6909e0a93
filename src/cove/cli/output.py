"""How the commands print: tables for people, JSON for programs, errors with what to do about them.

Much of what is printed was chosen by a sandbox or by another user, so nothing of it may reach the terminal as control
characters or as markup.
"""

import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from cove.models.errors import CoveError

if TYPE_CHECKING:
    from pydantic import BaseModel

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_PIPE_WIDTH = 240


def plain(text: object) -> str:
    """`text` on one line without anything that a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(text))


def print_json(value: "BaseModel | Mapping[str, Any] | Sequence[Any]") -> None:
    """`value` as indented JSON on stdout; models anywhere in it are fine."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True, default=_jsonable))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """A table on stdout. The first column is never cut; in a pipe no column is."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    table.add_column(columns[0], no_wrap=True, min_width=max((len(plain(row[0])) for row in rows), default=0))
    for column in columns[1:]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console.print(table)


def print_failures(failed: Sequence[Mapping[str, Any]]) -> None:
    """One line on stderr for each `{"id": ..., "error": {...}}`, with what to do about it."""
    for failure in failed:
        problem = failure["error"]
        typer.echo(plain(f"{failure['id']}: {problem['message']} {problem['remedy']}".rstrip()), err=True)


def pass_on(text: str, *, error: bool = False) -> None:
    """What a program in a sandbox printed, as it is, to our own stdout or stderr.

    Raises:
        SystemExit: whoever read our output has gone (`| head`): end quietly, as programs do.
    """
    stream = sys.stderr if error else sys.stdout
    try:
        stream.buffer.write(text.encode("utf-8", "replace"))
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(141)


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, one a line; those without a value are left out."""
    shown = {name: value for name, value in fields.items() if value not in (None, "")}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        typer.echo(f"{name.ljust(width)}  {plain(value)}")


def duration(seconds: float) -> str:
    """Two units at most, for example `3 min 20 s`."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2]) or "0 s"


def since(moment: datetime) -> str:
    """How long ago `moment` was."""
    return duration((datetime.now(UTC) - _aware(moment)).total_seconds())


def until(moment: datetime | None) -> str:
    """How far off a deadline is."""
    if moment is None:
        return "never"
    seconds = (_aware(moment) - datetime.now(UTC)).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else "now"


@contextmanager
def reporting(*, as_json: bool) -> Generator[None]:
    """End the program with code 1 and a report when the block raises `CoveError`."""
    try:
        yield
    except CoveError as problem:
        fail(problem, as_json=as_json)


def fail(problem: CoveError, *, as_json: bool = False) -> NoReturn:
    """Say what went wrong and what to do, and end with code 1.

    People read it on stderr; programs that asked for JSON read `{"error": {...}}` on stdout.
    """
    if as_json:
        print_json({"error": error_fields(problem)})
    else:
        colour = False if "NO_COLOR" in os.environ else None
        label = typer.style("error:", fg=typer.colors.RED, bold=True)
        typer.echo(f"{label} {plain(problem.message)}", err=True, color=colour)
        if problem.remedy:
            typer.echo(plain(problem.remedy), err=True)
    sys.exit(1)


def error_fields(problem: CoveError) -> dict[str, Any]:
    """An error as JSON: code, message, remedy, details."""
    return {
        "code": problem.code,
        "message": problem.message,
        "remedy": problem.remedy,
        "details": problem.details,
    }


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _jsonable(value: object) -> Any:
    from pydantic import BaseModel

    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else str(value)
