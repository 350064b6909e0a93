"""Reading and replacing a configuration file of the user's: whole or not at all, and with a copy of what was."""

import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cove.mcp.clients.locations import Location
from cove.models.errors import CoveError, error

MAX_BYTES: Final = 16 * 1024 * 1024
_BOM: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file as it was read.

    Attributes:
        path: where it is, links followed.
        text: what it holds, without a byte order mark; None if it does not exist.
    """

    path: Path
    text: str | None
    marked: bool = False
    status: os.stat_result | None = None


def read_file(location: Location) -> ConfigFile:
    """The file at `location`, which may be a link that stays below `location.within`.

    Raises:
        CoveError: it leads out of there, is not a regular file, too large, or no UTF-8.
    """
    try:
        path = location.path.resolve()
        if not path.is_relative_to(location.within.resolve()):
            raise _refused(f"{location.path} leads to {path}, out of {location.within}.")
        try:
            # Without waiting for somebody who writes into a named pipe (open(2)).
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise _refused(f"{path} is not a regular file.")
                content = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return ConfigFile(path, None)
        if len(content) > MAX_BYTES:
            raise _refused(f"{path} is larger than {MAX_BYTES // 1024**2} MiB.")
        text = content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise _refused(f"{location.path} is no UTF-8 text (byte {problem.start}).") from None
    except (OSError, RuntimeError) as problem:
        raise _refused(f"{location.path} cannot be read: {problem}.") from None
    return ConfigFile(path, text.removeprefix(_BOM), text.startswith(_BOM), status)


def write_file(location: Location, file: ConfigFile, text: str, *, secret: bool, now: datetime) -> Path | None:
    """Replace what was read by `text`, and say where the copy of the old file is.

    Mode and owner stay. A new file is for its owner alone, unless it belongs to a project and holds no `secret`; it
    belongs to the owner of its directory.

    Raises:
        CoveError: the file has been changed since it was read, or cannot be written.
    """
    content = ((_BOM if file.marked else "") + text).encode("utf-8")
    mode = 0o644 if location.of_project and not secret else 0o600
    try:
        _make_directories(file.path.parent)
        with tempfile.NamedTemporaryFile(dir=file.path.parent, prefix=".cove-", delete=False) as temporary:
            try:
                temporary.write(content)
                temporary.flush()
                os.fsync(temporary.fileno())
                _take_over(temporary.fileno(), file.status or file.path.parent.stat(), file.status, mode)
                backup = _backed_up(file, now)
                _expect_unchanged(file)
                Path(temporary.name).replace(file.path)
            except BaseException:
                with suppress(FileNotFoundError):
                    Path(temporary.name).unlink()
                raise
    except OSError as problem:
        raise _refused(f"{file.path} cannot be written: {problem}.") from None
    return backup


def _make_directories(directory: Path) -> None:
    missing = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o755)
        owner = path.parent.stat()
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)


def _take_over(descriptor: int, owner: os.stat_result, old: os.stat_result | None, mode: int) -> None:
    """Give the new file the mode and owner of the old one."""
    if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):  # an ordinary user cannot give files away
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) if old else mode)


def _backed_up(file: ConfigFile, now: datetime) -> Path | None:
    """A copy beside the file, with the time in its name, readable by whom the file is readable."""
    if file.text is None or file.status is None:
        return None
    backup = file.path.with_name(f"{file.path.name}.{now:%Y%m%dT%H%M%S.%f}.bak")
    with backup.open("xb") as copy:
        _take_over(copy.fileno(), file.status, file.status, 0o600)
        copy.write(file.path.read_bytes())
    return backup


def _expect_unchanged(file: ConfigFile) -> None:
    """Clients write these files too."""
    try:
        now = file.path.stat()
    except FileNotFoundError:
        now = None
    if _identity(now) != _identity(file.status):
        raise error("CONFLICT", f"{file.path} was changed meanwhile.", remedy="Run the command again.")


def _identity(status: os.stat_result | None) -> tuple[int, int, int] | None:
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status else None


def _refused(message: str) -> CoveError:
    return error("INVALID_REQUEST", message, remedy="Paste the entry by hand; `cove mcp config` prints it.")
