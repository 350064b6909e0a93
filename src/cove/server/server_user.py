"""Which user the server is, when root starts it."""

import os
import pwd
from dataclasses import dataclass
from typing import Final

from cove.host.identities import FIRST, SERVER_USER
from cove.models.errors import CoveError, error

ACCOUNT: Final = "cove"
"""The system user that is taken where it exists."""
VARIABLE: Final = "COVE_USER"


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Who the server becomes.

    Attributes:
        name: of the account, or the id where there is none.
        home: of the account; `/` where there is none.
    """

    name: str
    uid: int
    gid: int
    home: str = "/"


def server_user(chosen: str | None) -> ServerUser | None:
    """The user that a server started by this process becomes; None where it stays what it is.

    Args:
        chosen: a name or an id (`--user`, COVE_USER); None means the account `cove`, or an id of Cove's own.

    Raises:
        CoveError: INVALID_REQUEST: there is no such user, or it is one of the sandboxes'; or somebody else than root
            asks for another user than himself.
    """
    if os.geteuid() != 0:
        if chosen is not None and _found(chosen).uid != os.geteuid():
            raise error("INVALID_REQUEST", f"Only root can serve as user {chosen!r}.", remedy="Leave --user out.")
        return None
    if chosen is None:
        try:
            return _account(pwd.getpwnam(ACCOUNT))
        except KeyError:
            return ServerUser(str(SERVER_USER), SERVER_USER, SERVER_USER)
    user = _found(chosen)
    return None if user.uid == 0 else user


def _found(chosen: str) -> ServerUser:
    try:
        if not chosen.isascii() or not chosen.isdecimal():
            return _account(pwd.getpwnam(chosen))
        uid = int(chosen)
    except (KeyError, ValueError):
        raise _unknown(chosen) from None
    if uid >= 2**32 - 1 or (uid >= FIRST and uid != SERVER_USER):
        raise _unknown(chosen)
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        return ServerUser(str(uid), uid, uid)


def _account(entry: pwd.struct_passwd) -> ServerUser:
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir or "/")


def _unknown(chosen: str) -> CoveError:
    return error(
        "INVALID_REQUEST",
        f"user: {chosen[:64]!r} is no user of this machine that a server may be.",
        remedy="Name an account, a free id below 1879048192, or `root`; or leave --user out.",
        field="user",
    )
