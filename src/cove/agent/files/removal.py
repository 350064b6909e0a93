"""Making directories and removing trees."""

# A path is text here: pathlib would rewrite what the client sent.
# ruff: noqa: PTH103, PTH106, PTH108

import asyncio
import errno
import os
import stat

from cove.models.errors import error

_REMOVALS_BETWEEN_TURNS = 200
_MAX_REPEATS = 100


def make_directory(path: str) -> None:
    """Create a directory and its parents; one that exists is fine.

    Raises:
        OSError: EEXIST when something else is there.
    """
    os.makedirs(path, mode=0o755, exist_ok=True)


async def remove_tree(path: str) -> None:
    """Remove a file, a link (not its target) or a directory with all that is in it.

    Raises:
        CoveError: INVALID_PATH for the root directory.
        OSError: the kernel refused; what was removed until then stays removed.
    """
    if os.path.normpath(path) in ("/", "//"):
        raise error("INVALID_PATH", "The root directory cannot be removed.", path=path)
    trimmed = path.rstrip("/")
    if not stat.S_ISDIR(os.lstat(trimmed).st_mode):
        os.unlink(trimmed)
        return
    await _remove_directory(trimmed)


async def _remove_directory(top: str) -> None:
    # Depth first, with a stack of its own: a tree can be deeper than the interpreter's.
    pending = [top]
    attempts = _MAX_REPEATS
    while pending:
        inner = await _remove_leaves(pending[-1])
        if inner:
            pending += inner
            continue
        try:
            os.rmdir(pending[-1])
        except OSError as failure:
            # A program in the sandbox put something in meanwhile; it could do so for ever.
            if failure.errno != errno.ENOTEMPTY or not attempts:
                raise
            attempts -= 1
            continue
        pending.pop()
        await asyncio.sleep(0)


async def _remove_leaves(directory: str) -> list[str]:
    """Unlink all but the directories in `directory`, and return those."""
    inner: list[str] = []
    with os.scandir(directory) as scan:
        for count, found in enumerate(scan, 1):
            if found.is_dir(follow_symlinks=False):
                inner.append(found.path)
            else:
                os.unlink(found.path)
            if count % _REMOVALS_BETWEEN_TURNS == 0:
                await asyncio.sleep(0)
    return inner
