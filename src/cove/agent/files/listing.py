"""Listing directories."""

import asyncio
import os
import stat
from datetime import UTC, datetime

from cove.agent.files.paths import shown
from cove.models.files import FileEntry, FileList

MAX_ENTRIES = 100_000
_ENTRIES_BETWEEN_TURNS = 500


async def list_directory(path: str, *, limit: int = MAX_ENTRIES) -> FileList:
    """The entries of a directory by name, at most `limit` of them, links not followed.

    Raises:
        OSError: the kernel refused.
    """
    entries: list[FileEntry] = []
    truncated = False
    with os.scandir(path) as scan:
        for found in scan:
            if len(entries) >= limit:
                truncated = True
                break
            entry = _entry(found)
            if entry is not None:
                entries.append(entry)
            if len(entries) % _ENTRIES_BETWEEN_TURNS == 0:
                await asyncio.sleep(0)
    entries.sort(key=lambda entry: entry.name)
    return FileList(files=tuple(entries), path=path, count=len(entries), truncated=truncated)


def _entry(found: os.DirEntry[str]) -> FileEntry | None:
    try:
        status = found.stat(follow_symlinks=False)
    except OSError:
        # Removed between the two calls.
        return None
    # A link to a directory can be listed itself: say so, as `ls -p` of its target would.
    directory = found.is_dir()
    permissions = stat.filemode(status.st_mode)
    modified = _rfc3339(status.st_mtime)
    return FileEntry(
        name=shown(found.name),
        path=shown(found.path),
        size=status.st_size,
        is_directory=directory,
        is_dir=directory,
        permissions=permissions,
        mode=permissions,
        modified_time=modified,
        modified=modified,
        is_symlink=stat.S_ISLNK(status.st_mode),
    )


def _rfc3339(seconds: float) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        # utimensat(2) takes years that datetime does not know.
        moment = datetime.fromtimestamp(0, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
