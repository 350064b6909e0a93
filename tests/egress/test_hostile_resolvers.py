"""Name servers that lie, stall and flood: real ones, on a port of their own."""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cove.egress.answering import LONGEST_QUESTION, Answerer
from cove.egress.asking import LONGEST_ANSWER, MOST_RECORDS, BadAnswer, belongs, read
from cove.egress.journal import Journal
from cove.egress.name_servers import NameServers
from cove.egress.names_seen import NamesSeen
from cove.egress.policy import Policy
from cove.egress.resolving import Answer, KeptAnswers, LookupFailed, NoSuchName, Upstream, answer_in
from cove.models.network import EgressPolicy

SECONDS = 30.0
NAME, OTHER = "asked.example", "other.example"
ADDRESS = "93.184.216.34"
A, AAAA, TXT = dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.TXT

Query = dns.message.Message
Reply = Callable[[Query], Sequence[bytes]]


def _answer(query: Query, *records: dns.rrset.RRset, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Query:
    response = dns.message.make_response(query)
    response.answer.extend(records)
    response.set_rcode(rcode)
    return response


def _records(name: str, kind: str, *values: str, ttl: int = 60) -> dns.rrset.RRset:
    return dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *values)


def _true(query: Query) -> list[bytes]:
    asked = query.question[0]
    records = [dns.rrset.from_text(asked.name, 60, "IN", "A", ADDRESS)] if asked.rdtype == A else []
    return [_answer(query, *records).to_wire()]


def _nothing(query: Query) -> list[bytes]:
    del query
    return []


class Server:
    """Answers over UDP and TCP with whatever it is told to.

    Attributes:
        asked: name and protocol of each question.
    """

    def __init__(self, datagram: Reply, stream: Reply) -> None:
        self._datagram, self._stream = datagram, stream
        self.asked: list[tuple[str, str]] = []
        self.place = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, datagram: Reply = _true, stream: Reply = _true) -> AsyncGenerator[Self]:
        """Serve for the time of the block."""
        server = cls(datagram, stream)
        listener = await asyncio.start_server(server._serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(server), local_addr=("127.0.0.1", port)
        )
        server.place = f"127.0.0.1:{port}"
        try:
            yield server
        finally:
            transport.close()
            listener.close()
            await listener.wait_closed()

    def on_datagram(self, data: bytes) -> Sequence[bytes]:
        """What to send back."""
        return self._reply(data, "udp", self._datagram)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            for reply in self._reply(data, "tcp", self._stream):
                writer.write(len(reply).to_bytes(2) + reply)
            await writer.drain()
        writer.close()

    def _reply(self, data: bytes, protocol: str, reply: Reply) -> Sequence[bytes]:
        query = dns.message.from_wire(data)
        self.asked.append((query.question[0].name.to_text(omit_final_dot=True), protocol))
        return reply(query)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for reply in self._server.on_datagram(data):
            self._transport.sendto(reply, addr)


async def _texts(upstream: Upstream, name: str = NAME, kind: dns.rdatatype.RdataType = A) -> list[str]:
    async with asyncio.timeout(SECONDS):
        records = await upstream.records(name, kind)
    return _strings(records)


def _strings(records: dns.rrset.RRset | None) -> list[str]:
    return [str(record) for record in records or ()]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]


def _as(query: Query, **changes: Any) -> bytes:
    """A lie that would be believed if only `changes` were not looked at."""
    response = _answer(query, _records(NAME, "A", "6.6.6.6"))
    for name, value in changes.items():
        setattr(response, name, value)
    return response.to_wire()


_STRAY: dict[str, Callable[[Query], bytes]] = {
    "another id": lambda query: _as(query, id=query.id ^ 1),
    "another name": lambda query: _as(query, question=[_records(OTHER, "A")]),
    "another kind": lambda query: _as(query, question=[_records(NAME, "TXT")]),
    "two questions": lambda query: _as(query, question=[_records(NAME, "A"), _records(OTHER, "A")]),
    "no question": lambda query: _as(query, question=[]),
    "a question itself": lambda query: _as(query, flags=dns.flags.RD),
    "another operation": lambda query: struct.pack("!H", query.id) + b"\xa0\0" + _as(query)[4:],
    "a part of a head": lambda query: struct.pack("!H", query.id) + b"\x80\0",
    "nothing": lambda query: b"",
}


@pytest.mark.anyio
@pytest.mark.parametrize("stray", _STRAY)
async def test_what_does_not_belong_to_the_question_is_waited_past(stray: str) -> None:
    async with Server.started(lambda query: [_STRAY[stray](query), *_true(query)]) as server:
        assert await _texts(Upstream((server.place,))) == [ADDRESS]
        assert server.asked == [(NAME, "udp")]


@pytest.mark.anyio
async def test_guesses_make_it_ask_where_guessing_is_no_use() -> None:
    def guesses(query: Query) -> list[bytes]:
        return [_as(query, id=query.id ^ guess) for guess in range(1, 40)]

    async with Server.started(guesses) as server:
        assert await _texts(Upstream((server.place,))) == [ADDRESS]
        assert server.asked == [(NAME, "udp"), (NAME, "tcp")]


def _patched(query: Query, *, count: int = 1, tail: bytes = b"") -> bytes:
    """A message whose head promises `count` answers and that has `tail` in their place."""
    head = bytearray(_answer(query).to_wire())
    struct.pack_into("!H", head, 6, count)
    return bytes(head) + tail


def _chain(query: Query, length: int) -> bytes:
    names = [NAME, *(f"n{number}.example" for number in range(length))]
    aliases = [_records(name, "CNAME", f"{target}.") for name, target in itertools.pairwise(names)]
    return _answer(query, *aliases, _records(names[-1], "A", ADDRESS)).to_wire()


_LOOP = _records(NAME, "CNAME", f"{OTHER}."), _records(OTHER, "CNAME", f"{NAME}.")
_ROW = struct.pack("!HHIH", A, 1, 60, 4) + ip_address(ADDRESS).packed
_TOO_LONG = "a name server's answer is too long"
_UNREADABLE = "a name server's answer cannot be read"
_USELESS: dict[str, tuple[Callable[[Query], bytes], str]] = {
    "aliases in a loop": (lambda query: _answer(query, *_LOOP).to_wire(), "contradicts itself"),
    "an endless chain of aliases": (lambda query: _chain(query, 40), "contradicts itself"),
    "a pointer to itself": (lambda query: _patched(query, tail=b"\xc0\x1f" + _ROW), _UNREADABLE),
    "a pointer beyond the end": (lambda query: _patched(query, tail=b"\xff\xff" + _ROW), _UNREADABLE),
    "fewer records than promised": (lambda query: _patched(query, count=9, tail=b"\xc0\x0c" + _ROW), _UNREADABLE),
    "more than records": (lambda query: _true(query)[0] + b"more", _UNREADABLE),
    "65535 records promised": (lambda query: _patched(query, count=65535, tail=b"\xc0\x0c" + _ROW), _TOO_LONG),
    "too many records": (lambda query: _patched(query, count=999, tail=(b"\xc0\x0c" + _ROW) * 999), _TOO_LONG),
    "too many bytes": (lambda query: _true(query)[0] + bytes(LONGEST_ANSWER), _TOO_LONG),
    "no such name, and its address": (
        lambda query: _answer(query, _records(NAME, "A", ADDRESS), rcode=dns.rcode.NXDOMAIN).to_wire(),
        "contradicts itself",
    ),
    "that it is out of order": (lambda query: _answer(query, rcode=dns.rcode.SERVFAIL).to_wire(), "SERVFAIL"),
    "that it does not want to": (lambda query: struct.pack("!6H", query.id, 0x8005, 0, 0, 0, 0), "REFUSED"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("useless", _USELESS)
async def test_an_answer_of_no_use_is_told(useless: str) -> None:
    made, said = _USELESS[useless]
    async with Server.started(lambda query: [made(query)]) as server:
        with pytest.raises(LookupFailed, match=said):
            await _texts(Upstream((server.place,)))


def _cut(query: Query) -> list[bytes]:
    response = _answer(query)
    response.flags |= dns.flags.TC
    return [response.to_wire()]


_STREAMS: list[tuple[Reply, str]] = [
    (_nothing, "ended the connection early"),
    (lambda query: [_as(query, id=query.id ^ 1)], "answered another question"),
    (lambda query: [_true(query)[0] + bytes(LONGEST_ANSWER)], "too long"),
    (lambda query: [_patched(query, count=4000, tail=(b"\xc0\x0c" + _ROW) * 900)], "too long"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("stream", "said"), _STREAMS)
async def test_a_stream_is_believed_no_more_than_a_datagram(stream: Reply, said: str) -> None:
    async with Server.started(_cut, stream) as server:
        with pytest.raises(LookupFailed, match=said):
            await _texts(Upstream((server.place,)))
        assert server.asked == [(NAME, "udp"), (NAME, "tcp")]


@pytest.mark.anyio
async def test_what_was_not_asked_is_neither_told_nor_kept() -> None:
    def poisoned(query: Query) -> list[bytes]:
        if query.question[0].name.to_text() != f"{NAME}.":
            return _true(query)
        lies = [_records(OTHER, "A", "6.6.6.6"), _records(OTHER, "CNAME", f"{NAME}.")]
        response = _answer(query, _records(NAME, "A", ADDRESS), *lies)
        response.authority = [_records("example", "NS", f"{OTHER}.")]
        response.additional = lies
        return [response.to_wire()]

    async with Server.started(poisoned) as server:
        upstream = Upstream((server.place,))
        assert await _texts(upstream) == [ADDRESS]
        assert await _texts(upstream, OTHER) == [ADDRESS]
        assert server.asked == [(NAME, "udp"), (OTHER, "udp")]


@pytest.mark.anyio
async def test_an_alias_of_nothing_is_nothing() -> None:
    lie = _records(NAME, "CNAME", f"{OTHER}."), _records("third.example", "A", "6.6.6.6")
    async with Server.started(lambda query: [_answer(query, *lie).to_wire()]) as server:
        assert await _texts(Upstream((server.place,))) == []


@pytest.mark.anyio
@pytest.mark.parametrize(("ttl", "kept"), [(0, 0), (60, 59), (2**31 - 1, 299)])
async def test_answers_are_kept_for_their_time_and_never_for_long(ttl: int, kept: int) -> None:
    now = 0.0
    records = _records(NAME, "A", ADDRESS, ttl=ttl)
    async with Server.started(lambda query: [_answer(query, records).to_wire()]) as server:
        upstream = Upstream((server.place,), clock=lambda: now)
        await _texts(upstream)
        now = float(kept)
        await _texts(upstream)
        assert len(server.asked) == (1 if kept else 2)
        now += 2
        await _texts(upstream)
        assert len(server.asked) == (2 if kept else 3)


@pytest.mark.anyio
async def test_that_there_is_no_such_name_is_kept_for_a_minute_at_most() -> None:
    now = 0.0

    def none(query: Query) -> list[bytes]:
        response = _answer(query, rcode=dns.rcode.NXDOMAIN)
        response.authority = [_records("example", "SOA", f". . 1 2 3 4 {2**31 - 1}", ttl=2**31 - 1)]
        return [response.to_wire()]

    async with Server.started(none) as server:
        upstream = Upstream((server.place,), clock=lambda: now)
        for then, asked in ((0.0, 1), (59.0, 1), (61.0, 2)):
            now = then
            with pytest.raises(NoSuchName):
                await _texts(upstream)
            assert len(server.asked) == asked


def test_kept_answers_are_bounded_by_their_weight() -> None:
    small = Answer(_records(NAME, "A", ADDRESS), seconds=60)
    kept = KeptAnswers(lambda: 0.0, most_weight=3 * small.weight)
    for name in ("a.example", "b.example", "c.example"):
        kept.put((name, A), small)
    assert kept.get(("a.example", A)), "looked at last, it stays for longest"
    kept.put(("d.example", A), small)
    assert [bool(kept.get((f"{name}.example", A))) for name in "abcd"] == [True, False, True, True]
    for _ in range(3):
        kept.put(("a.example", A), small)
    assert kept.get(("d.example", A)), "put again it counts once"
    kept.put(("big.example", TXT), Answer(_records(NAME, "TXT", *(f'"{n}"' * 50 for n in range(99))), seconds=60))
    assert not kept.get(("big.example", TXT))


@pytest.mark.anyio
async def test_one_that_is_dead_is_asked_once() -> None:
    async with Server.started(_nothing) as dead, Server.started() as alive:
        upstream = Upstream((dead.place, alive.place), seconds=4.0)
        for name in (NAME, OTHER):
            assert await _texts(upstream, name) == [ADDRESS]
        assert len(dead.asked) == 1


@pytest.mark.anyio
async def test_silence_and_closed_doors_end_in_time() -> None:
    async with Server.started(_cut, _nothing) as ending, Server.started(_nothing) as silent:
        with pytest.raises(LookupFailed, match="ended the connection early"):
            await _texts(Upstream((ending.place,)))
        with pytest.raises(LookupFailed, match="no name server answers"):
            await _texts(Upstream((silent.place,), seconds=0.3))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{sock.getsockname()[1]}"
    with pytest.raises(LookupFailed, match="not reachable"):
        await _texts(Upstream((closed,), seconds=SECONDS))


@pytest.mark.anyio
async def test_a_question_is_under_way_once() -> None:
    async with Server.started() as server:
        upstream = Upstream((server.place,))
        async with asyncio.timeout(SECONDS):
            given_up = asyncio.create_task(upstream.records(NAME, A))
            others = [asyncio.create_task(upstream.records(NAME, A)) for _ in range(50)]
            await asyncio.sleep(0)
            given_up.cancel()
            found = await asyncio.gather(*others)
        assert all(_strings(records) == [ADDRESS] for records in found)
        assert server.asked == [(NAME, "udp")]


async def _told(
    server: Server, kind: str = "A", *, size: int | None = 1232, edns: int | None = None
) -> tuple[Query, NamesSeen]:
    """What a sandbox that may reach everything public is told, and what is remembered of it."""
    names = NamesSeen()
    answerer = Answerer(Upstream((server.place,)), names, Journal())
    question = dns.message.make_query(f"{NAME}.", kind, use_edns=edns, payload=65535).to_wire()
    async with asyncio.timeout(SECONDS):
        answer = await answerer.answer(question, Policy.of(EgressPolicy(allow=("*",))), size=size)
    assert answer
    return dns.message.from_wire(answer), names


@pytest.mark.anyio
async def test_private_addresses_among_public_ones_are_left_out() -> None:
    mixed = {
        "A": ["127.0.0.1", "169.254.169.254", ADDRESS, "10.0.0.1", "0.0.0.0"],
        "AAAA": ["::1", "2a00::1", "::ffff:10.0.0.1", f"::ffff:{ADDRESS}", "fd00::1", "64:ff9b::a00:1", "fe80::1"],
    }

    def replies(query: Query) -> list[bytes]:
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        return [_answer(query, _records(NAME, kind, *mixed[kind])).to_wire()]

    async with Server.started(replies) as server:
        for kind, public in (("A", ADDRESS), ("AAAA", "2a00::1")):
            told, names = await _told(server, kind)
            assert _strings(told.answer[0]) == [public]
            assert names.of(ip_address(public)) == (NAME,)
            assert not any(names.of(ip_address(address)) for address in mixed[kind] if address != public)
        mixed["AAAA"] = [f"::ffff:{ADDRESS}"]
        told, _ = await _told(server, "AAAA")
        assert (told.rcode(), told.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.anyio
async def test_an_answer_that_is_too_long_for_a_datagram_is_whole_in_a_stream() -> None:
    many = [f"93.184.{number}.1" for number in range(MOST_RECORDS - 1)]

    def full(query: Query) -> list[bytes]:
        return [_answer(query, _records(NAME, "A", *many)).to_wire()]

    async with Server.started(_cut, full) as server:
        for edns in (None, 0):
            told, _ = await _told(server, edns=edns)
            assert told.flags & dns.flags.TC
            assert not told.answer
            told, _ = await _told(server, size=None, edns=edns)
            assert set(_strings(told.answer[0])) == set(many)


@pytest.mark.anyio
async def test_questions_that_are_more_than_questions_are_not_taken_apart() -> None:
    answerer = Answerer(Upstream(("127.0.0.1:9",)), NamesSeen(), Journal())
    policy = Policy.of(EgressPolicy(allow=("nothing.example",)))
    query = dns.message.make_query(f"{NAME}.", "A")
    assert await answerer.answer(query.to_wire(), policy, size=None), "a question is answered"
    stuffed = dns.message.make_query(f"{NAME}.", "A", use_edns=0)
    stuffed.additional = [_records(f"n{number}.example", "A", ADDRESS) for number in range(4)]
    for data in (_true(query)[0], _patched(query), stuffed.to_wire(), query.to_wire() + bytes(LONGEST_QUESTION)):
        assert await answerer.answer(data, policy, size=None) is None


@given(st.data())
def test_no_answer_breaks_the_reader(data: st.DataObject) -> None:
    """Any bytes in place of some of a true answer: they do not belong to the question, are bad, or say something."""
    query = dns.message.make_query(f"{NAME}.", "A", id=7)
    aliases = [_records(NAME, "CNAME", "a.example."), _records("a.example", "A", ADDRESS, "1.2.3.4")]
    response = _answer(query, *aliases)
    response.authority = [_records("example", "SOA", "ns.example. mail.example. 1 2 3 4 5")]
    response.use_edns(0)
    wire = bytearray(response.to_wire())
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(2, len(wire) - 1))
        wire[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    if belongs(bytes(wire), query.to_wire()):
        with contextlib.suppress(BadAnswer):
            answer = answer_in(read(bytes(wire)))
            assert answer.records is None or answer.records.rdtype == A
            assert 0 <= answer.seconds <= 300


def test_resolv_conf_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    now = 0.0
    servers = NameServers(file=file, clock=lambda: now)
    assert servers.in_order() == [("127.0.0.1", 53)], "what resolv.conf(5) says of none"
    file.write_text(
        "# a comment\nsearch example\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver 2001:db8::1 x\n"
    )
    both = [("192.0.2.1", 53), ("2001:db8::1", 53)]
    assert servers.in_order() == both
    servers.avoid(both[0])
    assert servers.in_order() == both[::-1]
    now = 31.0
    assert servers.in_order() == both
    file.write_text("nameserver 192.0.2.2\n")
    assert servers.in_order() == [("192.0.2.2", 53)]
