"""The server's other door: a unix socket for programs of the same user, beside the port or instead of it."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cove.core.delegated_keys import DelegatedKeys
from cove.core.principal import FIRST_ORGANIZATION, Principal
from cove.models.errors import error
from cove.models.stored import DEFAULT_NAMESPACE
from cove.server.listening import BACKLOG
from cove.server.local_address import LocalAddress, publish, socket_path, withdraw

LOCAL_ACTOR = "local"
LOCAL_USER = Principal(DEFAULT_NAMESPACE, LOCAL_ACTOR, FIRST_ORGANIZATION, enters_any_namespace=True)
"""Whoever may read the data directory."""


def bind_local_door(data_dir: Path) -> socket.socket:
    """The listening socket, for its owner only. What is there already is a dead server's.

    Raises:
        CoveError: INVALID_REQUEST for a path that is too long for a socket (unix(7): 107 bytes).
    """
    path = socket_path(data_dir)
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before the bind, so that there is no moment at which others could connect: the file inherits the mode.
        os.fchmod(door.fileno(), 0o600)
        door.bind(str(path))
        door.listen(BACKLOG)
    except OSError as problem:
        door.close()
        raise error(
            "INVALID_REQUEST",
            f"Cannot listen at {path}: {problem.strerror or problem}.",
            remedy="Choose a data directory with a shorter path (--data-dir or COVE_DATA_DIR).",
        ) from problem
    return door


@contextmanager
def published(data_dir: Path, keys: DelegatedKeys, *, on_demand: bool) -> Generator[None]:
    """Tell programs of the same user how to come in, for the time of the block."""
    with keys.lent(LOCAL_USER) as key:
        publish(data_dir, LocalAddress.own(socket=socket_path(data_dir), key=key, on_demand=on_demand))
        try:
            yield
        finally:
            withdraw(data_dir)
