"""Files inside a sandbox (the agent's wire)."""

from pydantic import Field

from cove.models.base import Contract

MAX_WRITE_BYTES = 64 * 1024 * 1024


class WriteFile(Contract):
    """Body of `POST /files/write`. `encoding` is `utf-8` or `base64`; parents are created."""

    path: str
    content: str
    mode: str = "0644"
    encoding: str | None = None
    overwrite: bool = True


class MakeDirectory(Contract):
    """Body of `POST /files/mkdir`; parents are created, an existing directory is fine."""

    path: str


class FileWritten(Contract):
    """Answer to a write or an upload; `size` in bytes."""

    success: bool = True
    message: str
    path: str
    size: int
    timestamp: str


class FileContent(Contract):
    """Answer to `GET /files/read`; `size` is that of the file in bytes.

    `encoding` is `utf-8`, or `base64` where the file is not valid UTF-8.
    """

    content: str
    path: str
    size: int
    encoding: str = "utf-8"


class FileEntry(Contract):
    """One directory entry, with both spellings of each field: Python and JavaScript clients read different ones.

    Attributes:
        encoded_path: only where `path` is not UTF-8 (its other bytes are shown as U+FFFD): the percent-encoded bytes,
            to be put behind `?path=` as they are.
    """

    name: str
    path: str
    size: int
    is_directory: bool
    is_dir: bool
    permissions: str
    mode: str
    modified_time: str
    modified: str
    is_symlink: bool = False
    encoded_path: str | None = None


class FileList(Contract):
    """Answer to `GET /files/list`, by name; directories with more than 100,000 entries in the kernel's order.

    Attributes:
        truncated: `limit` was reached; `next_offset` goes on from there.
    """

    files: tuple[FileEntry, ...]
    path: str
    count: int
    truncated: bool = Field(default=False)
    next_offset: int | None = None


class ArchiveExtracted(Contract):
    """Answer to `PUT /files/archive`.

    Attributes:
        path: the directory that the archive was extracted to.
        entries: members that were written, directories and links included.
        bytes: of the files among them.
    """

    success: bool = True
    path: str
    entries: int
    bytes: int
