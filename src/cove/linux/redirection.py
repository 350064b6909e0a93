"""Everything that a network namespace sends elsewhere comes to sockets inside it.

The namespace has loopback only. A route makes every address one of its own (ip-route(8), type local), and rules hand
what arrives on loopback for other places to the sockets made here (TPROXY: nft(8), and
Documentation/networking/tproxy.rst of the kernel): TCP to any port, UDP to port 53. A connection that is accepted there
has the place that the program wanted as its own address. Nothing else is reachable: there is no interface that leads
out, and what nobody takes is refused at once.

The sockets are made closed, as if they were not there. Whoever holds them opens and closes them, without any privilege
in the namespace.
"""

import contextlib
import ctypes
import errno
import functools
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from cove.linux.netlink import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    message,
    nested,
    request,
)

STREAM_PORT: Final = 1
DNS_PORT: Final = 53
"""Of the sockets. Only root may take them, so no program of the sandbox has them already. Answers to datagrams come
from the port that the socket has, and so does DNS; that is why no other datagrams are captured."""

_LOOPBACK_INDEX: Final = 1
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_IP_RECVORIGDSTADDR, _IPV6_RECVORIGDSTADDR = 20, 74
_BACKLOG: Final = 256
_NOBODY: Final = 2
"""A port below 1024 that nothing is given."""
_V4, _V6 = 2, 10  # NFPROTO_IPV4, NFPROTO_IPV6
_NETWORK, _TRANSPORT = 1, 2  # NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER
_NAME: Final = b"cove\0"


@dataclass(frozen=True, slots=True)
class Captured:
    """The sockets that all goes to: one of each kind and family; those of IPv6 are missing where the kernel has none.

    Attributes:
        streams: what they accept has the wanted place as its own address (getsockname(2)).
        datagrams: each message to port 53 comes with the wanted place as IP_ORIGDSTADDR.
    """

    streams: tuple[socket.socket, ...]
    datagrams: tuple[socket.socket, ...]

    @property
    def all(self) -> tuple[socket.socket, ...]:
        """In the order streams, datagrams."""
        return self.streams + self.datagrams


def redirect_everything() -> Captured:
    """Set it up in this network namespace, whose loopback interface is up; needs CAP_NET_ADMIN over it. It may be set
    up already, by `refuse_everything` or by somebody whose sockets are closed: then these are new ones.

    Raises:
        OSError: the kernel has no transparent proxying.
    """
    with contextlib.suppress(FileExistsError):
        refuse_everything()
    families = _families()
    with contextlib.ExitStack() as undo:
        streams = tuple(undo.enter_context(_bound(family, socket.SOCK_STREAM, STREAM_PORT)) for family in families)
        datagrams = tuple(undo.enter_context(_bound(family, socket.SOCK_DGRAM, DNS_PORT)) for family in families)
        for receiver in datagrams:
            close_datagrams(receiver)
        undo.pop_all()
    return Captured(streams, datagrams)


def refuse_everything(*, ignored: str | None = None) -> None:
    """Set it up without the sockets: what arrives is refused at once, until `redirect_everything` makes them.

    Args:
        ignored: an interface whose packets somebody else takes: this kernel sees none of them.

    Raises:
        OSError: EEXIST: it is set up already; the kernel has no transparent proxying.
    """
    for family in _families():
        request(NETLINK_ROUTE, [_local_route(family)], acknowledged=1)
    rules = _ruleset(None if ignored is None else socket.if_nametoindex(ignored))
    request(NETLINK_NETFILTER, rules, acknowledged=len(rules) - 2)


def _families() -> list[socket.AddressFamily]:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC).close()
    except OSError as problem:
        if problem.errno != errno.EAFNOSUPPORT:
            raise
        return [socket.AF_INET]
    return [socket.AF_INET, socket.AF_INET6]


def open_streams(listener: socket.socket) -> None:
    """Take connections from now on. Idempotent."""
    listener.listen(_BACKLOG)


def close_streams(listener: socket.socket) -> None:
    """Refuse connections from now on, those that wait included; it can be opened again. Idempotent."""
    with contextlib.suppress(OSError):  # it was not open
        listener.shutdown(socket.SHUT_RDWR)


def open_datagrams(receiver: socket.socket) -> None:
    """Take datagrams from everybody in the namespace from now on. Idempotent."""
    address = (ctypes.c_char * 16)()  # AF_UNSPEC: connect(2) dissolves the association
    if ctypes.CDLL(None, use_errno=True).connect(receiver.fileno(), ctypes.byref(address), len(address)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def close_datagrams(receiver: socket.socket) -> None:
    """Refuse datagrams from now on: it takes only those of a port where nobody is. Idempotent."""
    receiver.connect((_loopback(receiver.family), _NOBODY))


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        _make_transparent(sock, family)
        if kind == socket.SOCK_DGRAM:
            _tell_wanted_place(sock, family)
        sock.bind((_loopback(family), port))
    except BaseException:
        sock.close()
        raise
    return sock


def _tell_wanted_place(receiver: socket.socket, family: socket.AddressFamily) -> None:
    if family == socket.AF_INET:
        receiver.setsockopt(socket.IPPROTO_IP, _IP_RECVORIGDSTADDR, 1)
    else:
        receiver.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR, 1)


def _make_transparent(sock: socket.socket, family: socket.AddressFamily) -> None:
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)


def _loopback(family: socket.AddressFamily) -> str:
    return "127.0.0.1" if family == socket.AF_INET else "::1"


def _local_route(family: socket.AddressFamily) -> bytes:
    """`ip route add local default dev lo` (rtnetlink(7))."""
    rtm_newroute, table_main, proto_static, scope_host, type_local, rta_oif = 24, 254, 4, 254, 2, 4
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, table_main, proto_static, scope_host, type_local, 0)
    body += attribute(rta_oif, struct.pack("=I", _LOOPBACK_INDEX))
    return message(rtm_newroute, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, body)


# --- nftables (linux/netfilter/nf_tables.h): table, chain and rules in one batch


@functools.lru_cache(maxsize=8)
def _ruleset(ignored: int | None) -> tuple[bytes, ...]:
    """The same for every sandbox of a kind: made once."""
    begin, end, res_id = 0x10, 0x11, struct.pack("!BBH", 0, 0, 10)
    # The first byte of an IPv4 destination, and the whole of an IPv6 one: loopback stays what it is.
    elsewhere_v4 = (_payload(_NETWORK, 16, 1), _differs_from(b"\x7f"))
    elsewhere_v6 = (_payload(_NETWORK, 24, 16), _differs_from(bytes(15) + b"\x01"))
    tcp = (_protocol(socket.IPPROTO_TCP),)
    dns = (_protocol(socket.IPPROTO_UDP), _payload(_TRANSPORT, 2, 2) + _equals(struct.pack("!H", DNS_PORT)))
    parts = [
        _table(),
        _chain(),
        *([] if ignored is None else [_drop_from(ignored)]),
        _rule(_V4, *elsewhere_v4, *tcp, to=STREAM_PORT),
        _rule(_V4, *elsewhere_v4, *dns, to=DNS_PORT),
        _rule(_V6, *elsewhere_v6, *tcp, to=STREAM_PORT),
        _rule(_V6, *elsewhere_v6, *dns, to=DNS_PORT),
    ]
    batch = [_nft(index, *part) for index, part in enumerate(parts, 2)]
    return message(begin, 0, 1, res_id), *batch, message(end, 0, len(batch) + 2, res_id)


def _nft(sequence: int, kind: int, body: bytes) -> bytes:
    subsystem, family_inet = 10, 1
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND
    return message(subsystem << 8 | kind, flags, sequence, struct.pack("=BBH", family_inet, 0, 0) + body)


def _table() -> tuple[int, bytes]:
    return 0, attribute(1, _NAME)


def _chain() -> tuple[int, bytes]:
    prerouting, priority, accept = 0, 0, 1
    hook = nested(4, [attribute(1, _be32(prerouting)), attribute(2, _be32(priority))])
    names = attribute(1, _NAME) + attribute(3, _NAME)
    return 3, names + hook + attribute(5, _be32(accept)) + attribute(7, b"filter\0")


def _rule(family: int, *conditions: bytes, to: int) -> tuple[int, bytes]:
    """`meta nfproto FAMILY CONDITIONS tproxy to LOOPBACK:TO`."""
    # The address is named: else it would be one of the interface by which a packet came, which may have none.
    address = socket.inet_pton(socket.AF_INET, "127.0.0.1") if family == _V4 else bytes(15) + b"\x01"
    return _to_chain(
        _meta(15) + _equals(bytes([family])),
        *conditions,
        _immediate(2, address),
        _immediate(3, struct.pack("!H", to)),
        _expression("tproxy", attribute(1, _be32(family)), attribute(2, _be32(2)), attribute(3, _be32(3))),
    )


def _drop_from(interface: int) -> tuple[int, bytes]:
    """`meta iif INTERFACE drop`."""
    verdict_register, drop = 0, 0
    verdict = nested(2, [nested(2, [attribute(1, _be32(drop))])])
    return _to_chain(
        _meta(4) + _equals(struct.pack("=I", interface)),
        _expression("immediate", attribute(1, _be32(verdict_register)), verdict),
    )


def _to_chain(*expressions: bytes) -> tuple[int, bytes]:
    return 6, attribute(1, _NAME) + attribute(2, _NAME) + nested(4, expressions)


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", attribute(1, _be32(register)), nested(2, [attribute(1, value)]))


def _protocol(number: int) -> bytes:
    return _meta(16) + _equals(bytes([number]))


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, [attribute(1, name.encode() + b"\0"), nested(2, attributes)])


def _meta(key: int) -> bytes:
    """Something about the packet into register 1: the interface that it came by (4), its family (15), its transport
    protocol (16)."""
    return _expression("meta", attribute(1, _be32(1)), attribute(2, _be32(key)))


def _payload(header: int, offset: int, length: int) -> bytes:
    """Bytes of a header into register 1."""
    fields = enumerate((1, header, offset, length), 1)
    return _expression("payload", *(attribute(kind, _be32(value)) for kind, value in fields))


def _equals(value: bytes) -> bytes:
    return _compared(0, value)


def _differs_from(value: bytes) -> bytes:
    return _compared(1, value)


def _compared(operation: int, value: bytes) -> bytes:
    data = nested(3, [attribute(1, value)])
    return _expression("cmp", attribute(1, _be32(1)), attribute(2, _be32(operation)), data)


def _be32(value: int) -> bytes:
    return struct.pack("!I", value)
