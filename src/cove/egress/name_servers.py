"""Which name servers to ask."""

from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cove.egress.asking import Server
from cove.models.host_names import nameserver_place

RESOLV_CONF: Final = Path("/etc/resolv.conf")
_LOCAL: Final[Server] = ("127.0.0.1", 53)
"""Where nothing is said (resolv.conf(5))."""


class NameServers:
    """Those that the operator named, or those of resolv.conf(5) as it is at the time: machines change networks."""

    def __init__(self, named: tuple[str, ...] = (), *, file: Path = RESOLV_CONF) -> None:
        self._file = file
        self._follows_file = not named
        self._servers = [nameserver_place(text) for text in named]
        self._seen: tuple[int, ...] | None = None

    def in_order(self) -> list[Server]:
        """The one that has answered last comes first."""
        if self._follows_file:
            self._read()
        return list(self._servers)

    def prefer(self, server: Server) -> None:
        """`server` has answered."""
        if server in self._servers and server != self._servers[0]:
            self._servers.remove(server)
            self._servers.insert(0, server)

    def _read(self) -> None:
        try:
            state = self._file.stat()
            seen = (state.st_mtime_ns, state.st_ino, state.st_size)
            if seen == self._seen:
                return
            lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            seen, lines = None, list[str]()
        self._servers = [*dict.fromkeys(filter(None, map(_server, lines)))] or [_LOCAL]
        self._seen = seen


def _server(line: str) -> Server | None:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return None
    try:
        return str(ip_address(words[1])), 53
    except ValueError:
        return None
