"""Listing directories of any size, in bounded memory."""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from json.encoder import encode_basestring_ascii as quoted
from urllib.parse import quote_from_bytes

from cove.agent.files.paths import shown

SORTED_ENTRIES = 100_000
"""Directories with more entries are listed in the order in which the kernel gives them: sorting takes all names."""

_PIECE_CHARACTERS = 64 * 1024
_NAMES_BETWEEN_TURNS = 5000
_ENTRIES_BETWEEN_TURNS = 500


async def listing_json(path: str, *, offset: int = 0, limit: int | None = None) -> AsyncGenerator[bytes, None]:
    """A `FileList` as JSON, in pieces: the entries of a directory, links not followed.

    Args:
        offset: how many entries to leave out at the beginning.
        limit: how many to list at most. `truncated` and `next_offset` say that there are more.

    Raises:
        OSError: before the first piece: the kernel refused.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as scan:
            names = await _ordered(scan)
            last = None if limit is None else offset + limit
            texts = _Texts(descriptor, path)
            held, size, count = ['{"files":['], 0, 0
            for turn, name in enumerate(islice(names, offset, last), 1):
                text = texts.of(name)
                if text is not None:
                    held.append(text if not count else f",{text}")
                    count += 1
                    size += len(text)
                if size >= _PIECE_CHARACTERS:
                    yield "".join(held).encode("ascii")
                    held, size = [], 0
                elif turn % _ENTRIES_BETWEEN_TURNS == 0:
                    await asyncio.sleep(0)
            truncated = next(names, None) is not None
            held.append(
                f'],"path":{quoted(shown(path))},"count":{count},"truncated":{_boolean(truncated)},'
                f'"next_offset":{last if truncated else "null"}}}'
            )
            yield "".join(held).encode("ascii")
    finally:
        os.close(descriptor)


async def _ordered(scan: Iterator[os.DirEntry[str]]) -> Iterator[str]:
    names: list[str] = []
    for found in scan:
        names.append(found.name)
        if len(names) > SORTED_ENTRIES:
            return chain(names, (more.name for more in scan))
        if len(names) % _NAMES_BETWEEN_TURNS == 0:
            await asyncio.sleep(0)
    names.sort()
    return iter(names)


class _Texts:
    """Entries of one directory as JSON.

    Text is put together here and not by way of `FileEntry`, whose objects would take a hundred times as much memory.
    """

    def __init__(self, directory: int, path: str) -> None:
        self._directory = directory
        self._prefix = path if path.endswith("/") else f"{path}/"

    def of(self, name: str) -> str | None:
        """The entry `name`, unless it was removed meanwhile."""
        try:
            status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except OSError:
            return None
        link = stat.S_ISLNK(status.st_mode)
        # A link to a directory can be listed itself: say so, as `ls -p` of its target would.
        directory = _boolean(self._leads_to_directory(name) if link else stat.S_ISDIR(status.st_mode))
        permissions = stat.filemode(status.st_mode)
        modified = _rfc3339(status.st_mtime)
        path = self._prefix + name
        text = (
            f'"size":{status.st_size},"is_directory":{directory},"is_dir":{directory},'
            f'"permissions":"{permissions}","mode":"{permissions}",'
            f'"modified_time":"{modified}","modified":"{modified}","is_symlink":{_boolean(link)}'
        )
        if path.isascii():
            return f'{{"name":{quoted(name)},"path":{quoted(path)},{text}}}'
        return f'{{"name":{quoted(shown(name))},"path":{quoted(shown(path))},{text}{_encoded(path)}}}'

    def _leads_to_directory(self, name: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=self._directory).st_mode)
        except OSError:
            return False


def _encoded(path: str) -> str:
    """Where JSON cannot hold the path: `encoded_path`, which goes into a query string as it is."""
    return "" if shown(path) == path else f',"encoded_path":"{quote_from_bytes(os.fsencode(path))}"'


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _rfc3339(seconds: float) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        # utimensat(2) takes years that datetime does not know.
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
