"""A log file that programs append to and nobody rotates: kept below a size by the server that writes most of it."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 4 * 1024 * 1024
_LOOK_SECONDS: Final = 5.0


async def keep_short(path: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Whenever the file has grown over `max_bytes`, move what it holds to `<name>.1` and begin anew; until cancelled.

    It is emptied in place: those who have it open for appending go on at its beginning (open(2), O_APPEND). A line
    that is written at that very moment may be lost.
    """
    while True:
        if _size(path) > max_bytes:
            await asyncio.to_thread(_empty, path)
        await asyncio.sleep(_LOOK_SECONDS)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _empty(path: Path) -> None:
    kept = path.with_name(path.name + ".1")
    kept.unlink(missing_ok=True)
    shutil.copy(path, kept)
    os.truncate(path, 0)
