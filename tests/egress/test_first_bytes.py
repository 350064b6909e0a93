"""What is read out of the first bytes of a connection: real greetings, odd ones, and anything at all."""

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cove.egress.first_bytes import Http, Incomplete, Opening, Other, Tls, Unreadable, opening
from cove.models.host_names import canonical_name


def hello(name: str | None, *, oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> bytes:
    """The first message of Python's own TLS client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = oldest
    context.set_alpn_protocols(["h2", "http/1.1"])
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(received, sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def vector(body: bytes, length_bytes: int) -> bytes:
    return len(body).to_bytes(length_bytes) + body


def built(*extensions: tuple[int, bytes], version: bytes = b"\x03\x03") -> bytes:
    """A greeting with these extensions."""
    listed = b"".join(struct.pack("!H", kind) + vector(body, 2) for kind, body in extensions)
    body = version + bytes(32) + vector(b"", 1) + vector(b"\x13\x01", 2) + vector(b"\x00", 1) + vector(listed, 2)
    return record(b"\x01" + vector(body, 3))


def record(data: bytes) -> bytes:
    return b"\x16\x03\x01" + vector(data, 2)


def named(*names: bytes, kind: int = 0) -> tuple[int, bytes]:
    """The extension with server names (RFC 6066 §3)."""
    return 0, vector(b"".join(bytes([kind]) + vector(name, 2) for name in names), 2)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["api.example.com", "a." * 60 + "example.com", None])
def test_a_real_greeting_says_where_it_goes(name: str | None, version: ssl.TLSVersion) -> None:
    data = hello(name, oldest=version)
    assert opening(data) == Tls(name)
    assert opening(data + b"more") == Tls(name)
    assert {opening(data[:cut]) for cut in range(len(data))} == {Incomplete()}


@pytest.mark.parametrize("size", [16, 33, 64, 200])
def test_a_greeting_may_come_in_many_records(size: int) -> None:
    message = hello("api.example.com")[5:]
    data = b"".join(record(message[start : start + size]) for start in range(0, len(message), size))
    assert opening(data) == Tls("api.example.com")
    assert opening(data[:-1]) == Incomplete()


def test_one_spelling_of_the_name() -> None:
    assert opening(built(named(b"API.Example.COM."))) == Tls("api.example.com")


@pytest.mark.parametrize(
    "data",
    [
        built(named(b"a.example", b"b.example")),
        built(named(b"a.example"), named(b"b.example")),
        built(named(b"evil.example\0.a.example")),
        built(named(b"192.0.2.1")),
        built(named(b"0x7f000001")),
        built(named(b"b\xc3\xbccher.example")),
        built(named(b"")),
        built(named(b"a..example")),
        built(named(b"a.example", kind=1)),
        built((0, b"")),
        built((0, b"\x00\x05\x00\x00\x09a.example")),
        record(b"\x02\x00\x00\x00"),
        b"\x16\x02\x00\x00\x05hello",
        record(b"\x01\xff\xff\xff" + bytes(100)),
        b"\x16\x03\x01\x00\x00",
        b"".join(record(bytes([1, 0, 4, 0][index : index + 1] or b"x")) for index in range(65)),
    ],
)
def test_what_could_be_misread_is_not_read(data: bytes) -> None:
    assert isinstance(opening(data), Unreadable)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GET / HTTP/1.1\r\n", Http),
        (b"CONNECT a:443 HTTP/1.1\r\n", Http),
        (b"GE", Incomplete),
        (b"", Incomplete),
        (b"get / HTTP/1.1\r\n", Other),
        (b"SSH-2.0-OpenSSH_9\r\n", Other),
        (b"PRI * HTTP/2.0\r\n", Http),
        (b"PROPFIND / HTTP/1.1\r\n", Http),
        (b"PROPFIND ", Incomplete),
        (b"SET a b\r\n", Other),
        (b"PING\r\n", Other),
        (b"\r\nGET / HTTP/1.1\r\n", Other),
        (b"\x00\x00\x00\x08", Other),
    ],
)
def test_other_protocols(data: bytes, kind: type[Opening]) -> None:
    assert isinstance(opening(data), kind)


@given(st.binary(max_size=300))
def test_any_bytes_are_something(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c"):
        found = opening(start + data)
        if isinstance(found, Tls) and found.name is not None:
            assert canonical_name(found.name) == found.name


@given(st.data())
def test_a_greeting_with_changed_bytes_is_something(data: st.DataObject) -> None:
    greeting = bytearray(hello("api.example.com"))
    for _ in range(data.draw(st.integers(1, 4))):
        greeting[data.draw(st.integers(0, len(greeting) - 1))] = data.draw(st.integers(0, 255))
    found = opening(bytes(greeting))
    if isinstance(found, Tls) and found.name is not None:
        assert canonical_name(found.name) == found.name
