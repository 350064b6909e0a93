"""Which name servers to ask."""

import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cove.egress.asking import Server
from cove.models.host_names import nameserver_place

RESOLV_CONF: Final = Path("/etc/resolv.conf")
AVOIDED_SECONDS: Final = 30.0
_LOCAL: Final[Server] = ("127.0.0.1", 53)
"""Where nothing is said (resolv.conf(5))."""


class NameServers:
    """Those that the operator named, or those of resolv.conf(5) as it is at the time: machines change networks."""

    def __init__(
        self,
        named: tuple[str, ...] = (),
        *,
        file: Path = RESOLV_CONF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._clock = clock
        self._avoided: dict[Server, float] = {}
        self._follows_file = not named
        self._servers = [nameserver_place(text) for text in named]
        self._seen: tuple[int, ...] | None = None

    def in_order(self) -> list[Server]:
        """As they are named; those that were silent a moment ago come last."""
        if self._follows_file:
            self._read()
        now = self._clock()
        return sorted(self._servers, key=lambda server: self._avoided.get(server, now) > now)

    def avoid(self, server: Server) -> None:
        """`server` was silent: for a while the others are asked first."""
        self._avoided[server] = self._clock() + AVOIDED_SECONDS

    def _read(self) -> None:
        try:
            state = self._file.stat()
            seen = (state.st_mtime_ns, state.st_ino, state.st_size)
            if seen == self._seen:
                return
            lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            seen, lines = None, list[str]()
        self._avoided.clear()
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
