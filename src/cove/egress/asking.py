"""Asking a name server one question (RFC 1035), and believing no more of what comes back than can be checked.

Answers are taken apart by one thread that serves all sandboxes, so they are measured first: whoever has a domain of its
own chooses how much a name server has to tell of it.
"""

import asyncio
import secrets
import socket
import struct
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype

Server = tuple[str, int]
"""Address and port."""

LONGEST_ANSWER: Final = 16 * 1024
MOST_RECORDS: Final = 128
_HEAD: Final = struct.Struct("!6H")
_STRAY_ANSWERS: Final = 16
"""So many that belong to no question are somebody's guesses: the question is asked again where guessing is no use."""
_WITHOUT_QUESTION: Final = (dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED)


class BadAnswer(Exception):
    """The server has answered, and it is of no use; why, in words."""


async def ask(server: Server, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.QueryMessage:
    """The answer of `server`, over UDP, and over TCP where that is cut. The caller limits the time.

    Raises:
        BadAnswer: it cannot be used.
        OSError: the server cannot be reached.
    """
    query = dns.message.make_query(name, kind, id=secrets.randbelow(1 << 16)).to_wire()
    data = await _by_datagram(server, query)
    if data is None or data[2] & (dns.flags.TC >> 8):
        data = await _by_stream(server, query)
    return read(data)


async def _by_datagram(server: Server, query: bytes) -> bytes | None:
    """The first answer that belongs to `query`; None where too many came that do not."""
    loop = asyncio.get_running_loop()
    # Connected, so that the kernel takes answers of this server only, each time at another port (RFC 5452).
    with await _connected(server, socket.SOCK_DGRAM) as sock:
        sock.send(query)
        for _ in range(_STRAY_ANSWERS):
            data = await loop.sock_recv(sock, LONGEST_ANSWER + 1)
            if belongs(data, query):
                return data
    return None


async def _by_stream(server: Server, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with await _connected(server, socket.SOCK_STREAM) as sock:
        await loop.sock_sendall(sock, len(query).to_bytes(2) + query)
        length = int.from_bytes(await _exactly(sock, 2))
        if length > LONGEST_ANSWER:
            raise BadAnswer("a name server's answer is too long")
        data = await _exactly(sock, length)
    if not belongs(data, query):
        raise BadAnswer("a name server has answered another question")
    return data


async def _connected(server: Server, kind: socket.SocketKind) -> socket.socket:
    family, _, _, _, place = socket.getaddrinfo(*server, type=kind, flags=socket.AI_NUMERICHOST)[0]
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        await asyncio.get_running_loop().sock_connect(sock, place)
    except BaseException:
        sock.close()
        raise
    return sock


async def _exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(sock, count - len(data))
        if not more:
            raise BadAnswer("a name server has ended the connection early")
        data += more
    return bytes(data)


def belongs(data: bytes, query: bytes) -> bool:
    """Whether `data` answers `query`, told from its head and question (RFC 5452 §9.1)."""
    if len(data) < _HEAD.size or data[:2] != query[:2]:
        return False
    _, flags, questions, *_ = _HEAD.unpack_from(data)
    if not flags & dns.flags.QR or dns.opcode.from_flags(flags) != dns.opcode.QUERY:
        return False
    if questions == 0:
        return flags & 0xF in _WITHOUT_QUESTION
    asked, repeated = query[_HEAD.size :], data[_HEAD.size : len(query)]
    return questions == 1 and repeated[:-4].lower() == asked[:-4].lower() and repeated[-4:] == asked[-4:]


def read(data: bytes) -> dns.message.QueryMessage:
    """A message that belongs to a query.

    Raises:
        BadAnswer: it is none, or longer than anybody needs.
    """
    _, _, _, *records = _HEAD.unpack_from(data)
    if len(data) > LONGEST_ANSWER or sum(records) > MOST_RECORDS:
        raise BadAnswer("a name server's answer is too long")
    try:
        message = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError):
        raise BadAnswer("a name server's answer cannot be read") from None
    assert isinstance(message, dns.message.QueryMessage)  # its opcode is that of a query
    return message
