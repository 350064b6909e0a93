"""Tracebacks as a user wants them: plain text, the user's own frames, nothing of the machinery."""

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from IPython.core.error import UsageError

_LIBRARY_DIRECTORIES = tuple(
    {
        *(sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[4]) + "/",
    }
)
_LIBRARY_PARTS = ("/site-packages/", "/dist-packages/")


def format_error(problem: BaseException, trace: TracebackType | None) -> str:
    """The text for standard error, with the chain of causes."""
    if isinstance(problem, UsageError):
        return f"UsageError: {problem}\n"
    report = traceback.TracebackException(type(problem), problem, trace, compact=True)
    for part in _chain(report):
        own = [frame for frame in part.stack if _is_users(frame.filename)]
        part.stack = traceback.StackSummary.from_list(own)
    return "".join(line for line in report.format() if line != "")


def format_syntax_error(problem: BaseException) -> str:
    """Where in the user's text the syntax is wrong."""
    return "".join(traceback.format_exception_only(problem))


def _is_users(filename: str) -> bool:
    if filename.startswith("<frozen"):
        return False
    return not filename.startswith(_LIBRARY_DIRECTORIES) and not any(part in filename for part in _LIBRARY_PARTS)


def _chain(report: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    waiting = [report]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting += [other for other in (part.__cause__, part.__context__, *(part.exceptions or ())) if other]
