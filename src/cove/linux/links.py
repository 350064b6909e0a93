"""Network interfaces of this network namespace: pairs of virtual ones, their addresses, routes and neighbours
(rtnetlink(7), veth(4))."""

import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Final

from cove.linux.netlink import (
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    message,
    nested,
    request,
)

HARDWARE_ADDRESS_BYTES: Final = 6

_NEWLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH = 16, 20, 24, 28
_IFF_UP: Final = 1
_MAIN_TABLE, _STATIC, _UNIVERSE, _LINK, _UNICAST = 254, 4, 0, 253, 1
_PERMANENT: Final = 0x80
_NO_DUPLICATE_DETECTION: Final = 0x02


def make_pair(name: str, peer: str, *, hardware: tuple[bytes, bytes], mtu: int) -> None:
    """Two interfaces, down; what goes into one comes out of the other.

    Raises:
        OSError: EEXIST, EPERM; EOPNOTSUPP: the kernel has no veth.
    """
    kind = attribute(1, b"veth\0")
    theirs = nested(1, [_interface(0), *_described(peer, hardware[1], mtu)])
    body = [_interface(0), *_described(name, hardware[0], mtu), nested(18, [kind, nested(2, [theirs])])]
    _send(_NEWLINK, b"".join(body))


def bring_up(name: str) -> None:
    """Switch an interface on."""
    _send(_NEWLINK, _interface(socket.if_nametoindex(name), flags=_IFF_UP), create=False)


def add_address(name: str, address: IPv4Interface | IPv6Interface) -> None:
    """Give an interface an address, with the network that is reached by it."""
    flags = _NO_DUPLICATE_DETECTION if address.version != 4 else 0
    head = struct.pack(
        "=BBBBI", _family(address), address.network.prefixlen, flags, _UNIVERSE, socket.if_nametoindex(name)
    )
    packed = address.ip.packed
    _send(_NEWADDR, head + attribute(2, packed) + attribute(1, packed))


def add_route(name: str, to: IPv4Interface | IPv6Interface, *, via: str | None = None, metric: int = 0) -> None:
    """Send what is for the network of `to` out of an interface, straight or to the router `via`.

    Args:
        metric: of several routes to the same network the lowest counts.
    """
    scope = _LINK if via is None and to.version == 4 else _UNIVERSE
    head = struct.pack("=BBBBBBBBI", _family(to), to.network.prefixlen, 0, 0, _MAIN_TABLE, _STATIC, scope, _UNICAST, 0)
    destination = attribute(1, to.network.network_address.packed) if to.network.prefixlen else b""
    router = attribute(5, ip_address(via).packed) if via else b""
    out = attribute(4, struct.pack("=I", socket.if_nametoindex(name)))
    _send(_NEWROUTE, head + destination + router + out + attribute(6, struct.pack("=I", metric)))


def add_neighbour(name: str, address: str, hardware: bytes) -> None:
    """Say for good who has an address behind an interface, so that nobody is asked."""
    who = ip_address(address)
    head = struct.pack("=BBHIHBB", _family(who), 0, 0, socket.if_nametoindex(name), _PERMANENT, 0, 0)
    _send(_NEWNEIGH, head + attribute(1, who.packed) + attribute(2, hardware))


def _described(name: str, hardware: bytes, mtu: int) -> list[bytes]:
    return [attribute(3, name.encode() + b"\0"), attribute(1, hardware), attribute(4, struct.pack("=I", mtu))]


def _interface(index: int, *, flags: int = 0) -> bytes:
    return struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, index, flags, flags)


def _family(address: object) -> int:
    return socket.AF_INET if getattr(address, "version", 4) == 4 else socket.AF_INET6


def _send(kind: int, body: bytes, *, create: bool = True) -> None:
    flags = NLM_F_ACK | (NLM_F_CREATE | NLM_F_EXCL if create else 0)
    request(NETLINK_ROUTE, [message(kind, flags, 1, body)], acknowledged=1)
