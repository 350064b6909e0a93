"""The servers of the test internet, as a program: web, echo, one that speaks first, DNS.

Usage: internet_servers.py CERTIFICATE KEY; prints `ready`.
"""

import asyncio
import contextlib
import gzip
import json
import ssl
import sys
from pathlib import Path
from typing import Final, cast

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import websockets.asyncio.server

NAMES: Final = {
    "allowed.example": "93.184.216.34",
    "www.allowed.example": "93.184.216.35",
    "other.example": "93.184.216.36",
    "shared.example": "93.184.216.34",
    "rebinding.example": "10.0.0.7",
    "metadata.example": "169.254.169.254",
    "intranet.example": "10.1.2.3",
    "alias.example": "allowed.example",
    "alias-of-intranet.example": "intranet.example",
    "impostor.example": "93.184.216.37",
    "packages.example": "93.184.216.38",
    "files.packages.example": "93.184.216.39",
    "registry.example": "93.184.216.40",
}
"""Name -> address, or the name that it is an alias of."""
CHANGING: Final = {
    "flipping.example": ("93.184.216.34", "169.254.169.254"),
    "turning.example": ("10.0.0.7", "127.0.0.1"),
}
"""Name -> addresses that it has in turns, each for no time at all."""
BOTH: Final = {"both.example": ("93.184.216.36", "10.0.0.7")}
SIX: Final = {"mapped.example": "::ffff:169.254.169.254", "translated.example": "64:ff9b::a9fe:a9fe"}
"""Name -> IPv6 address; they have no other."""
NOT_CERTIFIED: Final = frozenset({"impostor.example"})
FILES: Final = "files"
NAMESERVER: Final = "9.9.9.9"
ECHOED_DATAGRAMS: Final = (123, 443, 5353)
ECHO_PORT, GREETING_PORT, WEBSOCKET_PORT = 7000, 7022, 9443


async def _servers(certificate: str, key: str) -> None:
    import asyncio

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop = asyncio.get_running_loop()
    for port in (80, 8080):
        await asyncio.start_server(_web, "0.0.0.0", port)
    await asyncio.start_server(_web, "::", 80)
    for port in (443, 8443):
        await asyncio.start_server(_web, "0.0.0.0", port, ssl=context)
    await websockets.asyncio.server.serve(_talk, "0.0.0.0", WEBSOCKET_PORT, ssl=context)
    await asyncio.start_server(_web, "::", 443, ssl=context)
    await asyncio.start_server(_echo, "0.0.0.0", ECHO_PORT)
    await asyncio.start_server(_greet, "0.0.0.0", GREETING_PORT)
    await loop.create_datagram_endpoint(_Dns, local_addr=(NAMESERVER, 53))
    for port in ECHOED_DATAGRAMS:
        await loop.create_datagram_endpoint(_Echo, local_addr=(NAMESERVER, port))
    print("ready", flush=True)
    await asyncio.Event().wait()


async def _web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Tells each request's host, path, headers and body back, and all of it backwards; below /packed with gzip, below
    /chunks in chunks of 7 bytes. /bytes/N sends N bytes; /files/PATH what lies there in the directory `FILES` beside
    the certificate; /events one event, and the next when /event was asked for; /once hangs up
    afterwards without having said so.
    """
    with contextlib.suppress(Exception):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.rstrip().split("\r\n")
            method, path, _ = line.split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
            body = await _body(reader, headers)
            here = writer.get_extra_info("sockname")[0]
            if path == "/events":
                await _tell_events(writer)
                break
            if path == "/event":
                _EVENT.set()
            kind = "text/plain"
            if path.startswith("/bytes/"):
                answer = bytes(int(path.rpartition("/")[2]))
            elif path.startswith("/files/"):
                answer, kind = _file(path.removeprefix("/files/"))
            else:
                told = {"method": method, "path": path, "headers": headers, "body": body.decode(), "address": here}
                told["backwards"] = (head + body.decode())[::-1]
                answer = json.dumps(told).encode()
            coding = ""
            if path.startswith("/packed"):
                answer, coding = gzip.compress(answer), "content-encoding: gzip\r\n"
            if path.startswith("/chunks"):
                parts = [answer[at : at + 7] for at in range(0, len(answer), 7)]
                chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
            else:
                length = (
                    f"content-length: {len(answer)}\r\nx-told: {headers.get('x-tell', '')}\r\ncontent-type: {kind}\r\n"
                )
                told_body = b"" if method == "HEAD" else answer
                writer.write(f"HTTP/1.1 200 OK\r\n{coding}{length}\r\n".encode() + told_body)
            await writer.drain()
            if path == "/once":
                break
    writer.close()


def _file(path: str) -> tuple[bytes, str]:
    """What it holds, and its kind; a directory is its index."""
    file = Path(sys.argv[1]).parent / FILES / path
    if file.is_dir():
        return (file / "index.html").read_bytes(), "text/html"
    return file.read_bytes(), "application/octet-stream"


_EVENT: Final = asyncio.Event()


async def _tell_events(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: first\n\n")
    await writer.drain()
    await _EVENT.wait()
    writer.write(b"data: second\n\n")


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while length := int(await reader.readline(), 16):
        body += (await reader.readexactly(length + 2))[:-2]
    await reader.readline()
    return body


async def _talk(connection: websockets.asyncio.server.ServerConnection) -> None:
    """Sends the request's header, and what it is sent."""
    await connection.send(connection.request.headers.get("authorization", "") if connection.request else "")
    async for message in connection:
        await connection.send(message)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server speaks first, as with SSH."""
    del reader
    writer.write(b"hello\n")
    with contextlib.suppress(OSError):
        await writer.drain()
    writer.close()


class _Dns(asyncio.DatagramProtocol):
    """Answers A questions from `NAMES`, and counts them in TXT records of `asked.example`."""

    def __init__(self) -> None:
        self._asked: list[str] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer."""

        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        asked = query.question[0]
        name = asked.name.to_text(omit_final_dot=True).lower()
        self._asked.append(name)
        kind = dns.rdatatype.to_text(asked.rdtype)
        if name == "asked.example" and kind == "TXT":
            texts = [f'"{one}"' for one in self._asked[-50:]]
            response.answer.append(dns.rrset.from_text_list(asked.name, 0, "IN", "TXT", texts))
        elif name in CHANGING or name in BOTH or name in SIX:
            _add_hostile(response, asked.name, name, kind, self._asked.count(name))
        elif name not in NAMES:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif kind == "A":
            target = NAMES[name]
            owner = asked.name
            if target in NAMES:
                response.answer.append(dns.rrset.from_text(owner, 60, "IN", "CNAME", f"{target}."))
                owner, target = dns.name.from_text(target), NAMES[target]
            response.answer.append(dns.rrset.from_text(owner, 60, "IN", "A", target))
        elif kind == "TXT":
            response.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "TXT", '"a text"'))
        assert self._transport
        self._transport.sendto(response.to_wire(), addr)


def _add_hostile(response: dns.message.Message, owner: dns.name.Name, name: str, kind: str, turn: int) -> None:
    if name in SIX and kind == "AAAA":
        response.answer.append(dns.rrset.from_text(owner, 0, "IN", "AAAA", SIX[name]))
    elif name in BOTH and kind == "A":
        response.answer.append(dns.rrset.from_text_list(owner, 60, "IN", "A", BOTH[name]))
    elif name in CHANGING and kind == "A":
        addresses = CHANGING[name]
        response.answer.append(dns.rrset.from_text(owner, 0, "IN", "A", addresses[turn // 2 % len(addresses)]))


class _Echo(asyncio.DatagramProtocol):
    """Sends each message back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Back."""
        self._transport.sendto(data, addr)


if __name__ == "__main__":
    asyncio.run(_servers(*sys.argv[1:]))
