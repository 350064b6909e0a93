"""Directories of the server's machine, copied into sandboxes."""

from pydantic import Field

from cove.models.base import Contract

MAX_VOLUME_BYTES = 1024**3
MAX_VOLUME_ENTRIES = 100_000


class CopyVolume(Contract):
    """Body of `POST /v1/sandboxes/{id}/volumes`.

    Attributes:
        host_path: a directory of the server's machine, at or below one that its operator allowed.
        path: the directory of the sandbox that it is copied to; made if need be.
    """

    host_path: str = Field(min_length=1, max_length=4096)
    path: str = Field(min_length=1, max_length=4096)


class VolumeCopied(Contract):
    """Its answer.

    Attributes:
        entries: files, directories and links that were copied.
        bytes: of the files among them.
    """

    id: str
    path: str
    entries: int
    bytes: int
    request_id: str | None = None
