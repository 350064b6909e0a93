"""The addresses of a sandbox's ports: a host name of their own, or a path that needs no DNS.

Names and paths are taken by exact match from raw bytes: what is encoded, dotted or padded names nothing.
"""

import re
from typing import Final, NamedTuple

MAX_PORT: Final = 65535

_LABEL: Final = re.compile(r"([1-9][0-9]{0,4})-([0-9]{10}[a-z0-9]{8})")
_SANDBOX: Final = re.compile(rb"/sandboxes/([0-9]{10}[a-z0-9]{8})(?=[/?]|\Z)")
_PORT: Final = re.compile(rb"/ports/([1-9][0-9]{0,4})(?=[/?]|\Z)")

_VENDOR_PATH: Final = b"/.vms.hopx.dev"
"""Hopx clients make the address of a port from one that ends so (any text before it, even a path)."""


class HostAddress(NamedTuple):
    """`{port}-{id}.<domain>`."""

    port: int
    sandbox_id: str


class PathAddress(NamedTuple):
    """`/sandboxes/{id}...`.

    Attributes:
        prefix: the part of the target that is the address.
        rest: what is behind it, beginning with a slash.
        port: of a program; None where the path is one of the agent's.
        bare: nothing is behind the address, not even a slash.
    """

    sandbox_id: str
    prefix: bytes
    rest: bytes
    port: int | None = None
    bare: bool = False


def in_host(hostname: str, domain: str | None) -> HostAddress | None:
    """The address that a host name (lower case, no port) is; below `domain`, or anywhere if that is None."""
    label, _, suffix = hostname.partition(".")
    match = _LABEL.fullmatch(label)
    if match is None or not suffix or (domain is not None and suffix != domain) or int(match[1]) > MAX_PORT:
        return None
    return HostAddress(int(match[1]), match[2])


def looks_like_port(hostname: str, domain: str | None) -> bool:
    """Whether a name below `domain` can only have been meant as the address of a port."""
    return domain is not None and hostname.endswith("." + domain) and hostname[0].isdecimal()


def in_path(target: bytes) -> PathAddress | None:
    """The address at the beginning of a request target; None when it holds no sandbox's id.

    Raises:
        ValueError: there is a port, but not one from 1 to 65535.
    """
    match = _SANDBOX.match(target)
    if match is None:
        return None
    sandbox_id, rest = match[1].decode("ascii"), target[match.end() :]
    port = _PORT.match(rest)
    if port is not None and int(port[1]) <= MAX_PORT:
        rest = rest[port.end() :]
        return PathAddress(sandbox_id, match[0] + port[0], rooted(rest), int(port[1]), not rest.startswith(b"/"))
    if rest.startswith(b"/ports/"):
        raise ValueError("A port is a number from 1 to 65535.")
    return PathAddress(sandbox_id, match[0], rooted(rest))


def without_vendor_path(target: bytes) -> bytes:
    """The target behind the path that Hopx clients are given as part of an address."""
    rest = target.removeprefix(_VENDOR_PATH)
    return rooted(rest) if rest != target and rest[:1] in (b"", b"/", b"?") else target


def rooted(target: bytes) -> bytes:
    """The target with its slash."""
    return target if target.startswith(b"/") else b"/" + target
