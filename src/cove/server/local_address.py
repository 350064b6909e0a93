"""How programs of the same user find the server of a data directory: the file `run/server/local.json`.

Whoever can read it could make keys with `cove keys create` just as well. This is read before anything else when an
assistant starts, so it imports little.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cove.linux.clone import is_alive, start_time_of
from cove.models.version import VERSION

_MAX_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAddress:
    """A server that serves a data directory.

    Attributes:
        socket: the unix socket of its gateway.
        key: opens everything of the namespace `default`, and may enter any other.
        pid, started: of the server; the start time tells it from a later process with the same id.
        version: of Cove.
        on_demand: an assistant started it, and it ends when the last one has gone.
    """

    socket: str
    key: str = field(repr=False)
    pid: int
    started: int
    version: str
    on_demand: bool

    @classmethod
    def own(cls, *, socket: Path, key: str, on_demand: bool) -> "LocalAddress":
        """This process is the server."""
        pid = os.getpid()
        started = start_time_of(pid)
        return cls(socket=str(socket), key=key, pid=pid, started=started, version=VERSION, on_demand=on_demand)

    @property
    def base_url(self) -> str:
        """For the SDK."""
        return f"http+unix://{quote(self.socket)}"

    @property
    def lives(self) -> bool:
        """Whether the server still runs."""
        return is_alive(self.pid, self.started)


def server_directory(data_dir: Path) -> Path:
    """The server's sockets and its address: its own, mode 0700."""
    return data_dir / "run" / "server"


def address_path(data_dir: Path) -> Path:
    """Where the address is published."""
    return server_directory(data_dir) / "local.json"


def socket_path(data_dir: Path) -> Path:
    """Where the server listens for programs of the same user."""
    return server_directory(data_dir) / "local.sock"


def log_path(data_dir: Path) -> Path:
    """What a server says that was started on demand: it has no terminal."""
    return data_dir / "local-server.log"


def living_server(data_dir: Path) -> LocalAddress | None:
    """The server of this data directory, or None: what a dead one left behind does not count.

    Raises:
        PermissionError: it is another user's.
    """
    try:
        with address_path(data_dir).open("rb") as file:
            text = file.read(_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        address = LocalAddress(**json.loads(text))
        return address if address.lives else None
    except (ValueError, TypeError):
        return None


def publish(data_dir: Path, address: LocalAddress) -> None:
    """Write the file, readable by its owner only, complete or not at all."""
    path = address_path(data_dir)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(address), file)
    fresh.rename(path)


def withdraw(data_dir: Path) -> None:
    """Remove the file. Idempotent."""
    address_path(data_dir).unlink(missing_ok=True)
