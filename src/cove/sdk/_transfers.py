"""What became of a transfer of a whole directory."""

from cove.models.base import Contract
from cove.models.files import FileWritten


class Skipped(Contract):
    """Something that a transfer of a directory left out."""

    path: str
    reason: str


class DirectoryTransfer(FileWritten):
    """What a transfer of a directory did; `path` is its destination.

    Attributes:
        size: bytes of the files' contents.
        entries: files, directories and links.
        skipped: FIFOs, sockets, devices, and links that lead outside.
    """

    entries: int = 0
    skipped: tuple[Skipped, ...] = ()
