"""Finding the host's commands in the distribution's directories, links and scripts included."""

import os
from pathlib import Path

from cove.host.templates.rootfs import is_trusted

SEARCH = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
_SHEBANG_LIMIT = 256


def find_command(name: str) -> Path | None:
    """Where the host keeps command `name`; None when it is missing or leads out of the distribution."""
    for directory in SEARCH:
        path = Path(directory, name)
        if path.is_file() and os.access(path, os.X_OK) and is_trusted(path.resolve()):
            return path
    return None


def script_interpreter(path: Path) -> str | None:
    """The name of the command that runs this script (for `/usr/bin/env x`, `x`); None for other files."""
    with path.open("rb") as file:
        start = file.read(_SHEBANG_LIMIT)
    if not start.startswith(b"#!"):
        return None
    words = start[2:].split(b"\n", 1)[0].decode(errors="replace").split()
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-")]
    return Path(words[0]).name if words else None
