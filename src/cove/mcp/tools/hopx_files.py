"""Files in a sandbox (contract section 5)."""

import base64
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from cove.mcp.bounds import fitting
from cove.mcp.output import DEFAULT_CHARACTERS, MAX_CHARACTERS, bytes_in
from cove.mcp.tool import Answer, AnyTool, Call, Effect, Result, Tool
from cove.mcp.tools.hopx_arguments import InSandbox, Number, Path
from cove.mcp.tools.hopx_reaching import answered
from cove.models.errors import error
from cove.models.files import FileEntry
from cove.sdk import AsyncSandbox

_MAX_OFFSET = 2**43
"""No file is longer: a disk has at most 1 TiB."""
_MAX_COUNTED = 10_000
_UTF8_BYTES = 4


class ReadArguments(InSandbox):
    """Of `file_read`."""

    path: Path
    offset: Annotated[int, Field(ge=0, le=_MAX_OFFSET), Number] = Field(default=0, description="Bytes.")
    limit: Annotated[int, Field(ge=1, le=MAX_CHARACTERS), Number] = Field(
        default=DEFAULT_CHARACTERS, description="Bytes."
    )


class ReadResult(Result):
    """Of `file_read`.

    Attributes:
        offset: where `content` begins, if not where it was asked for: that was within a character.
        size: of the whole file, in bytes.
        next_offset: where to read on; absent at the end.
        encoding: `utf-8`, or `base64` for what is no text.
    """

    path: str
    content: str
    encoding: str
    offset: int | None = None
    size: int
    next_offset: int | None = None


class WriteArguments(InSandbox):
    """Of `file_write`."""

    path: Path
    content: str


class WriteResult(Result):
    """Of `file_write`."""

    path: str
    size: int


class ListArguments(InSandbox):
    """Of `file_list`."""

    path: Path = "/workspace"
    max_results: Annotated[int, Field(ge=1, le=_MAX_COUNTED), Number] = 1000
    offset: Annotated[int, Field(ge=0, le=_MAX_OFFSET), Number] = 0


class ListResult(Result):
    """Of `file_list`. `total_files` is the least number where `next_offset` is more than 10,000 away from the end."""

    path: str
    files: list[dict[str, Any]]
    count: int
    truncated: bool
    total_files: int
    next_offset: int | None = None


class PathArguments(InSandbox):
    """Of tools about one path."""

    path: Path


class ExistsResult(Result):
    """Of `file_exists`."""

    path: str
    exists: bool


class DoneResult(Result):
    """Of tools that change a path."""

    status: str
    path: str


class Part(NamedTuple):
    """A part of a file, from `start` to `end`."""

    content: str
    encoding: str
    start: int
    end: int


async def file_read(call: Call, arguments: ReadArguments) -> Answer:
    """Read a part, cut between characters."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        # A little more than is shown says whether there is more, also for files that do not know their size.
        found = await sandbox.files.read_range(
            arguments.path, offset=arguments.offset, limit=arguments.limit + 2 * _UTF8_BYTES
        )
        try:
            data = bytes_in(found)
        except ValueError:
            raise error("BAD_RESPONSE", "The sandbox sent something that is not base64.") from None
        part = readable(data, arguments.offset, arguments.limit)
        more = part.end < arguments.offset + len(data)
        return Answer(
            ReadResult(
                path=found.path,
                content=part.content,
                encoding=part.encoding,
                offset=part.start if part.start != arguments.offset else None,
                size=found.size,
                next_offset=part.end if more else None,
            )
        )

    return await answered(call, arguments.sandbox_id, use)


def readable(data: bytes, offset: int, limit: int) -> Part:
    """About `limit` bytes of `data`, which begins at `offset` of a file: text where it is text."""
    start = _character_start(data) if offset else 0
    text = _whole_characters(data[start:], limit)
    if text is not None and "\0" not in text:
        return Part(text, "utf-8", offset + start, offset + start + len(text.encode()))
    # Base64 takes four characters for three bytes.
    raw = data[: max(limit * 3 // 4, 1)]
    return Part(base64.b64encode(raw).decode("ascii"), "base64", offset, offset + len(raw))


def _character_start(data: bytes) -> int:
    """How many bytes at the beginning belong to a character that began before (RFC 3629: 10xxxxxx)."""
    continued = data[: _UTF8_BYTES - 1]
    return len(continued) - len(continued.lstrip(bytes(range(0x80, 0xC0))))


def _whole_characters(data: bytes, limit: int) -> str | None:
    """The text at the beginning, as far as a character ends within `limit` bytes; at least one character."""
    if len(data) <= limit:
        return _text(data)
    most = data[: max(limit, _UTF8_BYTES)]
    texts = (_text(most[: len(most) - dropped]) for dropped in range(min(_UTF8_BYTES, len(most))))
    return next((text for text in texts if text is not None), None)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


async def file_write(call: Call, arguments: WriteArguments) -> Answer:
    """Create or replace."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        written = await sandbox.files.write(arguments.path, arguments.content)
        return Answer(WriteResult(path=written.path, size=written.size))

    return await answered(call, arguments.sandbox_id, use)


async def file_list(call: Call, arguments: ListArguments) -> Answer:
    """The entries of a directory, in parts."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        found = await sandbox.files.list_page(arguments.path, offset=arguments.offset, limit=_MAX_COUNTED)
        rows = fitting(_row(entry) for entry in found.files[: arguments.max_results])
        more = found.truncated or len(rows) < len(found.files)
        return Answer(
            ListResult(
                path=found.path,
                files=rows,
                count=len(rows),
                truncated=more,
                total_files=arguments.offset + len(found.files),
                next_offset=arguments.offset + len(rows) if more else None,
            )
        )

    return await answered(call, arguments.sandbox_id, use)


async def file_exists(call: Call, arguments: PathArguments) -> Answer:
    """Whether there is something."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        return Answer(ExistsResult(path=arguments.path, exists=await sandbox.files.exists(arguments.path)))

    return await answered(call, arguments.sandbox_id, use)


async def file_remove(call: Call, arguments: PathArguments) -> Answer:
    """Remove a file or a whole directory."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        await sandbox.files.remove(arguments.path)
        return Answer(DoneResult(status="removed", path=arguments.path))

    return await answered(call, arguments.sandbox_id, use)


async def file_mkdir(call: Call, arguments: PathArguments) -> Answer:
    """Make a directory and its parents."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        await sandbox.files.mkdir(arguments.path)
        return Answer(DoneResult(status="created", path=arguments.path))

    return await answered(call, arguments.sandbox_id, use)


def _row(entry: FileEntry) -> dict[str, Any]:
    return entry.model_dump(
        mode="json", include={"name", "path", "size", "is_directory", "permissions", "modified_time"}
    )


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="file_read",
        title="Read a file",
        description="Read a file in parts; next_offset says where to read on. Binary comes as base64.",
        arguments=ReadArguments,
        result=ReadResult,
        effect=Effect.READS,
        idempotent=True,
        run=file_read,
    ),
    Tool(
        name="file_write",
        title="Write a file",
        description="Create or replace a text file; missing directories are made.",
        arguments=WriteArguments,
        result=WriteResult,
        effect=Effect.CHANGES,
        idempotent=True,
        run=file_write,
    ),
    Tool(
        name="file_list",
        title="List a directory",
        description="What a directory holds.",
        arguments=ListArguments,
        result=ListResult,
        effect=Effect.READS,
        idempotent=True,
        run=file_list,
    ),
    Tool(
        name="file_exists",
        title="Look for a file",
        description="Whether a path exists.",
        arguments=PathArguments,
        result=ExistsResult,
        effect=Effect.READS,
        idempotent=True,
        run=file_exists,
    ),
    Tool(
        name="file_remove",
        title="Remove a file",
        description="Remove a file, or a directory with all in it.",
        arguments=PathArguments,
        result=DoneResult,
        effect=Effect.CHANGES,
        idempotent=True,
        run=file_remove,
    ),
    Tool(
        name="file_mkdir",
        title="Make a directory",
        description="Make a directory and its parents.",
        arguments=PathArguments,
        result=DoneResult,
        effect=Effect.ADDS,
        idempotent=True,
        run=file_mkdir,
    ),
)
