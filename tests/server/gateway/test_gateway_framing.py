"""Heads and bodies: the same boundaries as h11 whatever the chunking, and nothing ambiguous accepted."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cove.server.gateway.framing import (
    BodyReader,
    BodyWriter,
    ChunkedReader,
    LengthReader,
    request_body,
    response_body,
)
from cove.server.gateway.heads import FramingError, HeadBuffer, parse_request, parse_response
from cove.server.gateway.settings import MAX_HEAD_BYTES

_TOKEN = st.from_regex(r"[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]{0,20}", fullmatch=True)
_VALUE = st.from_regex(r"([\x21-\x7e]([\x20-\x7e]{0,30}[\x21-\x7e])?)?", fullmatch=True)
_TARGET = st.from_regex(r"/[A-Za-z0-9%._~!$&'()*+,;=:@/?-]{0,60}", fullmatch=True)
_MEANINGFUL = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "authorization"}
_FIELDS = st.lists(st.tuples(_TOKEN.filter(lambda name: name.lower() not in _MEANINGFUL), _VALUE), max_size=8)
_PIECES = st.lists(st.binary(min_size=1, max_size=300), max_size=6)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` in parts of the given sizes, over and over."""
    parts: list[bytes] = []
    index = 0
    while data:
        size = sizes[index % len(sizes)]
        parts.append(data[:size])
        data = data[size:]
        index += 1
    return parts


def read_body(reader: BodyReader, parts: list[bytes]) -> tuple[bytes, bytes]:
    """Payload, and what came after the body."""
    payload, rest = b"", b""
    for part in parts:
        if reader.done:
            rest += part
            continue
        payload += reader.feed(part)
        rest += reader.rest
    return payload, rest


def split_messages(data: bytes, sizes: list[int]) -> tuple[list[tuple[bytes, bytes, bytes]], bytes]:
    """Method, target and body of each request, and the bytes after the last."""
    buffer, found = HeadBuffer(), list[tuple[bytes, bytes, bytes]]()
    reader: BodyReader | None = None
    body = b""
    head = None
    for part in cut(data, sizes):
        buffer.append(part)
        while True:
            if reader is None:
                raw = buffer.take_head()
                if raw is None:
                    break
                head, body = parse_request(raw), b""
                reader = request_body(head.framing)[0]
            if not reader.done:
                body += reader.feed(buffer.take_rest())
                buffer.append(reader.rest)
            if not reader.done:
                break
            assert head is not None
            found.append((head.method, head.target, body))
            reader = None
    return found, buffer.take_rest()


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    target=_TARGET,
    fields=_FIELDS,
    pieces=_PIECES,
    chunked=st.booleans(),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=20),
)
def test_requests_have_the_boundaries_h11_gives_them(
    method: str,
    target: str,
    fields: list[tuple[str, str]],
    pieces: list[bytes],
    chunked: bool,
    sizes: list[int],
) -> None:
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(b"".join(pieces))))
    client = h11.Connection(h11.CLIENT)
    wire = client.send(h11.Request(method=method, target=target, headers=[("Host", "x"), framing, *fields])) or b""
    for piece in pieces:
        wire += client.send(h11.Data(data=piece)) or b""
    wire += client.send(h11.EndOfMessage()) or b""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(wire)
    request = server.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    expected = (bytes(request.method), bytes(request.target), body)
    found, rest = split_messages(wire * 3 + b"G", sizes)
    assert found == [expected] * 3
    assert rest == b"G"
    head = parse_request(wire.partition(b"\r\n\r\n")[0])
    assert [(lower, value) for lower, _, value in head.fields] == [(k, v) for k, v in request.headers]


@given(
    status=st.sampled_from([200, 201, 204, 304, 404, 500]),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    pieces=_PIECES,
    kind=st.sampled_from(["length", "chunked", "close"]),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=20),
)
def test_responses_have_the_boundaries_h11_gives_them(
    status: int, method: str, pieces: list[bytes], kind: str, sizes: list[int]
) -> None:
    empty = method == "HEAD" or status in (204, 304)
    payload = b"".join(pieces)
    fields = {"length": [("Content-Length", str(len(payload)))], "chunked": [("Transfer-Encoding", "chunked")]}
    server = h11.Connection(h11.SERVER)
    server.receive_data(f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    while not isinstance(server.next_event(), h11.EndOfMessage):
        pass
    wire = server.send(h11.Response(status_code=status, headers=fields.get(kind, []))) or b""
    if not empty:
        for piece in pieces:
            wire += server.send(h11.Data(data=piece)) or b""
    wire += server.send(h11.EndOfMessage()) or b""
    raw, _, rest = wire.partition(b"\r\n\r\n")
    head = parse_response(raw)
    assert head.status == status
    reader, writer = response_body(head.framing, empty=empty, client_minor=1)
    received, extra = read_body(reader, cut(rest, sizes))
    reader.end()
    assert reader.done
    assert received == (b"" if empty else payload)
    assert extra == b""
    assert reframed(writer, received, sizes) == received or head.framing.length is not None or empty


def reframed(writer: BodyWriter, payload: bytes, sizes: list[int]) -> bytes:
    """What a chunked reader gets of `payload` as framed by `writer`."""
    wire = b"".join(writer.frame(part) for part in cut(payload, sizes)) + writer.end()
    return read_body(ChunkedReader(), [wire])[0] if wire.endswith(b"0\r\n\r\n") else wire


@given(st.binary(max_size=400), st.lists(st.integers(1, 40), min_size=1, max_size=10))
def test_garbage_never_does_anything_but_raise(data: bytes, sizes: list[int]) -> None:
    for prefix in (b"", b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"):
        try:
            split_messages(prefix + data, sizes)
        except FramingError:
            continue


def post(*lines: bytes) -> bytes:
    return b"\r\n".join([b"POST / HTTP/1.1", *lines])


@pytest.mark.parametrize(
    "raw",
    [
        post(b"Host: x", b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        post(b"Host: x", b"Transfer-Encoding: chunked", b"Content-Length: 3"),
        post(b"Host: x", b"Content-Length: 3", b"Content-Length: 4"),
        post(b"Host: x", b"Content-Length: 3", b"Content-Length: 3"),
        post(b"Host: x", b"Content-Length: 3, 3"),
        post(b"Host: x", b"Content-Length: +3"),
        post(b"Host: x", b"Content-Length: -3"),
        post(b"Host: x", b"Content-Length: 0x3"),
        post(b"Host: x", b"Content-Length: 3 4"),
        post(b"Host: x", b"Content-Length:"),
        post(b"Host: x", b"Content-Length: 9999999999999999999"),
        post(b"Host: x", "Content-Length: ٣".encode()),
        post(b"Host: x", b"Transfer-Encoding: gzip, chunked"),
        post(b"Host: x", b"Transfer-Encoding: chunked, identity"),
        post(b"Host: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        post(b"Host: x", b"Transfer-Encoding: xchunked"),
        post(b"Host: x", b"Transfer-Encoding: \x0bchunked"),
        post(b"Host: x", b"Transfer-Encoding : chunked"),
        post(b"Host: x", b"Transfer-Encoding"),
        post(b"Host: x", b"Transfer-Encoding:", b" chunked"),
        post(b"Host: x", b"X: a", b" b"),
        post(b"Host: x", b"X: a", b"\tb"),
        post(b" Host: x"),
        post(b"Host: x", b"X: a\nContent-Length: 4"),
        post(b"Host: x", b"X: a\rContent-Length: 4"),
        post(b"Host: x", b"X: a\x00b"),
        post(b"Host: x", b"X\x00: b"),
        post(b"Host: x", b"X: a\x7f"),
        post(b"Host: x", b": b"),
        post(b"Host: x", b"X y: b"),
        post(b"Host: x", b"Authorization: Bearer a.b.c", b"authorization: Bearer d.e.f"),
        post(b"Host: x", b"Host: y"),
        post(b"Host: x y"),
        post(b"Host: x/y"),
        post(b"Host: x@y"),
        post(b"X: y"),
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked",
        b"POST  / HTTP/1.1\r\nHost: x",
        b"POST / HTTP/1.1 \r\nHost: x",
        b"POST\t/ HTTP/1.1\r\nHost: x",
        b"POST /a b HTTP/1.1\r\nHost: x",
        b"POST /a#b HTTP/1.1\r\nHost: x",
        b"POST /\xc3\xa9 HTTP/1.1\r\nHost: x",
        b"POST x HTTP/1.1\r\nHost: x",
        b"POST * HTTP/1.1\r\nHost: x",
        b"POST ftp://x/ HTTP/1.1\r\nHost: x",
        b"POST http:///a HTTP/1.1\r\nHost: x",
        b"POST http://u@x/a HTTP/1.1\r\nHost: x",
        b"post / HTTP/1.1\r\nHost: x",
        b"POST / HTTP/1.1\nHost: x",
        b"POST / http/1.1\r\nHost: x",
        b"POST /\r\nHost: x",
    ],
)
def test_ambiguous_requests_are_refused(raw: bytes) -> None:
    with pytest.raises(FramingError) as caught:
        parse_request(raw)
    assert caught.value.status == 400


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/1.2", b"HTTP/3", b"HTTP/0.9"])
def test_other_versions_are_refused(version: bytes) -> None:
    with pytest.raises(FramingError) as caught:
        parse_request(b"PRI * " + version)
    assert caught.value.status == 505


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 ",
        b"HTTP/1.0 404 Not  Found",
        b"HTTP/1.1 299 \xe2\x82\xac",
    ],
)
def test_status_lines(raw: bytes) -> None:
    assert 200 <= parse_response(raw).status < 500


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/2 200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\nX: y",
        b"ICY 200 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b",
    ],
)
def test_ambiguous_responses_are_refused(raw: bytes) -> None:
    with pytest.raises(FramingError):
        parse_response(raw)


@pytest.mark.parametrize(
    "body",
    [
        b"g\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\nx\r\n",
        b"0x1\r\nx\r\n",
        b" 1\r\nx\r\n",
        b"1 \r\nx\r\n",
        b"1_0\r\n",
        b"1\nx\r\n",
        b"1\rx",
        b"1;a\nb\r\nx\r\n",
        b"1;\x00\r\nx\r\n",
        b"1\r\nxx\r\n",
        b"1\r\nx\n0\r\n\r\n",
        b"1\r\nx\r\r\n",
        b"1\r\nx0\r\n\r\n",
        b"1\r\nxAB0\r\n\r\n",
        b"1\r\nxAB1\r\nx\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"1;" + b"a" * 2000,
        b"0\r\nbad\r\n\r\n",
        b"0\r\nA: b\n\r\n\r\n",
        b"0\r\n A: b\r\n\r\n",
        b"0\r\n" + b"A: bbbbbbbbbbbbbbbbbb\r\n" * 1000 + b"\r\n",
        b"0\r\nA: " + b"b" * 20000,
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100000])
def test_broken_chunks_are_refused(body: bytes, size: int) -> None:
    with pytest.raises(FramingError):
        read_body(ChunkedReader(), cut(body, [size]))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunk_extensions_and_trailers_end_here(size: int) -> None:
    wire = b'3;a="b;c"\r\nabc\r\nA ; x=y\r\n0123456789\r\n000;z\r\nX-Api-Key: 1\r\nHost: y\r\n\r\nNEXT'
    assert read_body(ChunkedReader(), cut(wire, [size])) == (b"abc0123456789", b"NEXT")


def test_a_body_that_breaks_off_is_noticed() -> None:
    for reader, part in ((LengthReader(3), b"ab"), (ChunkedReader(), b"3\r\nabc\r\n"), (ChunkedReader(), b"0\r\n")):
        reader.feed(part)
        with pytest.raises(FramingError):
            reader.end()


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_an_oversized_head_is_refused_when_the_bound_is_reached(size: int) -> None:
    buffer = HeadBuffer()
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n"
    with pytest.raises(FramingError) as caught:
        for part in cut(head, [size]):
            buffer.append(part)
            assert buffer.take_head() is None
    assert caught.value.status == 431
    assert len(buffer) <= MAX_HEAD_BYTES + size


def test_too_many_fields_are_refused() -> None:
    with pytest.raises(FramingError) as caught:
        parse_request(post(b"Host: x", *[b"a: b"] * 200))
    assert caught.value.status == 431


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02", b"\x00", b"\n", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nA: b\n"]
)
def test_what_can_never_become_a_request_is_refused_before_it_is_complete(data: bytes) -> None:
    buffer = HeadBuffer()
    with pytest.raises(FramingError):
        for part in cut(data, [1]):
            buffer.append(part)
            assert buffer.take_head() is None
