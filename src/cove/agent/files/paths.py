"""Paths as requests name them.

There is nothing to keep a path inside of: the agent runs as the sandbox's user in the sandbox's mount namespace, so
the kernel resolves `..` and links exactly as it does for the user's own programs.
"""

import posixpath
import stat

from cove.models.errors import error

MAX_PATH_BYTES = 4095


def resolved(text: str, *, workspace: str) -> str:
    """`text` as an absolute path; a relative one is taken below `workspace`.

    Bytes that are not UTF-8 are surrogate escapes here, as everywhere in `os` (PEP 383).

    Raises:
        CoveError: INVALID_PATH when it is empty, too long, or holds what no path can hold.
    """
    if not text:
        raise error("INVALID_PATH", "The path is empty.")
    if "\0" in text:
        raise error("INVALID_PATH", "The path contains NUL.")
    path = text if text.startswith("/") else posixpath.join(workspace, text)
    try:
        size = len(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise error("INVALID_PATH", "The path is not valid Unicode.") from None
    if size > MAX_PATH_BYTES:
        raise error("INVALID_PATH", f"The path takes {size} bytes; at most {MAX_PATH_BYTES} are possible.")
    return path


def shown(name: str) -> str:
    """`name` for JSON: bytes that are not UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def kind_of(mode: int) -> str:
    """What a file of this `st_mode` is, for messages."""
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISREG, "a regular file"),
    )
    return next((kind for test, kind in kinds if test(mode)), "something else")
