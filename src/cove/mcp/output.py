"""How much of what a program prints reaches the model: the head and the tail, with a mark between them that says
where the rest is.

The agent is asked to keep no more than will be shown. What is longer it writes to a file inside the sandbox, all of
it; the tail is read from there.
"""

import base64
import binascii
import re
from dataclasses import dataclass

from cove.models.errors import CoveError
from cove.models.execution import CommandResult, ExecutionResult
from cove.models.files import FileContent
from cove.sdk import AsyncSandbox

DEFAULT_CHARACTERS = 20_000
MIN_CHARACTERS = 100
MAX_CHARACTERS = 200_000
_HEAD_SHARE = 0.6
_UTF8_BYTES = 4
"""Most bytes that a character takes."""
_MAX_PATH = 300
_LEAST_KEPT = 0.8
"""Of a part, when it is cut back to whole lines."""


@dataclass(frozen=True, slots=True)
class Printed:
    """One stream of a program as its result has it.

    Attributes:
        text: the beginning, without the agent's mark of truncation.
        notes: lines of the platform's, which are always shown.
        total: bytes that were printed; None where the agent kept all of them.
        file: where all of it lies inside the sandbox.
    """

    text: str
    notes: str = ""
    total: int | None = None
    file: str | None = None


def printed(result: ExecutionResult | CommandResult, stream: str) -> Printed:
    """What `result` says of `stdout` or `stderr`."""
    text: str = getattr(result, stream)
    if not getattr(result, f"{stream}_truncated"):
        return Printed(text)
    mark = f"\n[{stream} truncated: the first "
    kept, found, rest = text.rpartition(mark)
    if not found:
        return Printed(text)
    said, _, notes = rest.partition("]\n")
    total = re.match(r"[0-9]{1,15} of ([0-9]{1,15}) bytes", said)
    file: str | None = getattr(result, f"{stream}_file")
    known = file is not None and file.startswith("/") and file.isprintable() and len(file) <= _MAX_PATH
    return Printed(kept, notes, int(total[1]) if total else 0, file if known else None)


async def shown(stream: Printed, limit: int, *, sandbox: AsyncSandbox, lasting: bool) -> str:
    """At most `limit` characters of it, and a mark.

    Args:
        lasting: the sandbox is still there for the next call, so that the rest can be read.
    """
    if stream.total is None:
        return shortened(stream.text, limit, rest="")
    whole = await _whole(stream, limit, sandbox)
    if whole is not None and len(whole) <= limit:
        return whole + stream.notes
    head = _to_line_end((whole or stream.text)[: int(limit * _HEAD_SHARE)])
    tail = _from_line_start(await _tail(stream, limit - len(head), whole, sandbox))
    start = _bytes_of(head)
    left_out = max(stream.total - start - _bytes_of(tail), 0)
    mark = f"[... {left_out} of {stream.total} bytes left out{_way(stream, start, sandbox, lasting=lasting)} ...]"
    return f"{head}{_break_after(head)}{mark}\n{tail}{_break_after(tail) if stream.notes else ''}{stream.notes}"


def shortened(text: str, limit: int, *, rest: str) -> str:
    """`text` in at most `limit` characters and a mark; `rest` says how to read what was left out."""
    if len(text) <= limit:
        return text
    head = int(limit * _HEAD_SHARE)
    tail = limit - head
    way = f"; {rest}" if rest else ""
    return f"{text[:head]}\n[... {len(text) - limit} characters left out{way} ...]\n{text[len(text) - tail :]}"


def bytes_in(content: FileContent) -> bytes:
    """What was read.

    Raises:
        ValueError: the sandbox sent something that is not base64.
    """
    if content.encoding != "base64":
        return content.content.encode(errors="replace")
    try:
        return base64.b64decode(content.content, validate=True)
    except binascii.Error as problem:
        raise ValueError("not base64") from problem


async def _whole(stream: Printed, limit: int, sandbox: AsyncSandbox) -> str | None:
    """All of it where that may fit, or nearly: bytes are counted there, and characters here."""
    if stream.file is None or stream.total is None or stream.total > _UTF8_BYTES * limit:
        return None
    data = await _part(sandbox, stream.file, offset=0, limit=stream.total)
    return None if data is None else data.decode(errors="replace")


async def _tail(stream: Printed, characters: int, whole: str | None, sandbox: AsyncSandbox) -> str:
    if whole is not None:
        return whole[-characters:]
    if stream.file is None or not stream.total:
        return ""
    offset = max(stream.total - _UTF8_BYTES * characters, 0)
    data = await _part(sandbox, stream.file, offset=offset, limit=_UTF8_BYTES * characters)
    if not data:
        return ""
    # The offset may be within a character.
    return data.lstrip(bytes(range(0x80, 0xC0))).decode(errors="replace")[-characters:]


async def _part(sandbox: AsyncSandbox, path: str, *, offset: int, limit: int) -> bytes | None:
    """None where it cannot be read: the program may have removed it, and its result counts more."""
    try:
        return bytes_in(await sandbox.files.read_range(path, offset=offset, limit=limit))
    except (CoveError, ValueError):
        return None


def _bytes_of(text: str) -> int:
    """How many bytes of the stream `text` stands for, at least: what was not UTF-8 is a character of its own here."""
    return len(text.replace("\ufffd", "?").encode(errors="replace"))


def _way(stream: Printed, start: int, sandbox: AsyncSandbox, *, lasting: bool) -> str:
    if not lasting:
        return "; the sandbox is gone: print less, raise max_output_chars, or use create_sandbox, whose output is kept"
    if stream.file is None:
        return "; they were not kept: print less, or print to a file"
    return f"; read on with file_read(sandbox_id='{sandbox.sandbox_id}', path='{stream.file}', offset={start})"


def _to_line_end(head: str) -> str:
    """Without its last line, which was cut, where that is no great loss."""
    end = head.rfind("\n") + 1
    return head[:end] if end >= len(head) * _LEAST_KEPT else head


def _from_line_start(tail: str) -> str:
    start = tail.find("\n") + 1
    return tail[start:] if start <= len(tail) * (1 - _LEAST_KEPT) else tail


def _break_after(text: str) -> str:
    return "\n" if text and not text.endswith("\n") else ""
