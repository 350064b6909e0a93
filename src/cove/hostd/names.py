"""Names of a host daemon's files, for programs that need no more of it: this imports nothing."""

from typing import Final

SOCKET_NAME: Final = "hostd.sock"
LOCK_NAME: Final = "hostd.lock"
"""Both in the directory `run` of the data directory."""

SERVERS_CHILD: Final = "server's child"
"""Role, in the lock file, of a daemon that a server started and owns."""
