"""Ways around a list of what is allowed: other spellings, other places in a request or greeting, other ways to ask."""

import ssl

from tests.internet_servers import NAMES
from tests.security.attacks import attack
from tests.security.networked import Networked, asked_outside, unhindered
from tests.security.programs import done

RULES = ("allowed.example", "*.packages.example", "allowed.example:7000")
HOSTS = ("allowed.example", "files.packages.example")

SPELLINGS = (
    *("evilallowed.example", "allowed.example.evil.org", "allowed.exampl", "xallowed.example", "other.example"),
    *("allowed.example.other.example", "packages.example", "evilpackages.example", "*.packages.example", "*"),
    *("allowed.example@other.example", "other.example#allowed.example", "other.example?.packages.example"),
    *("other.example/.packages.example", "other.example\\.packages.example", "allowed.example,other.example"),
    *("allowed.example:80@other.example", "other.example%00.packages.example", "other.example%2f.packages.example"),
    *("allowed.example..", ".allowed.example", "allowed..example", "-.packages.example", "a b.packages.example"),
    *("xn--llowed-6fd.example", "xn--alowed-5tb.example", "93.184.216.36", "0x5db8d824", "1572395044", "93.12113956"),
    *("0135.0270.0330.0044", "93.184.55332", "[::ffff:93.184.216.36]", "[64:ff9b::5db8:d824]", "93.184.216.36."),
    *(
        "[::ffff:5db8:d824%lo]",
        "localhost",
        "127.1",
        "allowed.example:8080",
        "allowed.example:443",
        "allowed.example:x",
    ),
)
ODD = (b"\xd0\xb0llowed.example", b"allowed.example\x00.other.example", b"allowed\xe3\x80\x82example", b"", b"\xff")
"""A homograph, NUL, another full stop, none, no character."""

PLAIN = """
def ask(*pieces, port=80, address=other):
    return lambda: forbidden(raw(address, port, *pieces), hosts, addresses)
good, bad = b"allowed.example", b"other.example"
attempts = {f"host {host}": ask(get(host.encode())) for host in spellings}
attempts |= {f"host {host!r}": ask(get(host)) for host in odd}
smuggled = get(bad, b"/smuggled")
attempts |= {
    "two hosts": ask(get(good, more=b"Host: other.example\\r\\n")),
    "two hosts, the other way": ask(get(bad, more=b"Host: allowed.example\\r\\n")),
    "no host": ask(b"GET / HTTP/1.1\\r\\n\\r\\n"),
    "no host, 1.0": ask(b"GET / HTTP/1.0\\r\\n\\r\\n"),
    "another in the target": ask(b"GET http://other.example/ HTTP/1.1\\r\\nHost: allowed.example\\r\\n\\r\\n"),
    "a user in the target": ask(b"GET http://a@other.example/ HTTP/1.1\\r\\nHost: other.example\\r\\n\\r\\n"),
    "another scheme": ask(b"GET ftp://other.example/ HTTP/1.1\\r\\nHost: allowed.example\\r\\n\\r\\n"),
    "CONNECT": ask(b"CONNECT other.example:443 HTTP/1.1\\r\\nHost: other.example:443\\r\\n\\r\\n", smuggled),
    "CONNECT to what is allowed": ask(b"CONNECT allowed.example:7000 HTTP/1.1\\r\\n\\r\\n", smuggled),
    "folded": ask(b"GET / HTTP/1.1\\r\\nX: y\\r\\n Host: allowed.example\\r\\nHost: other.example\\r\\n\\r\\n"),
    "a space before the colon": ask(b"GET / HTTP/1.1\\r\\nHost : allowed.example\\r\\nHost: other.example\\r\\n\\r\\n"),
    "bare line ends": ask(b"GET / HTTP/1.1\\nHost: allowed.example\\n\\n" + smuggled),
    "the next request": ask(get(good), smuggled),
    "the next request, at once": ask(get(good) + smuggled),
    "length and chunks": ask(b"POST / HTTP/1.1\\r\\nHost: allowed.example\\r\\nContent-Length: 5\\r\\n"
                             b"Transfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n" + smuggled),
    "two lengths": ask(b"POST / HTTP/1.1\\r\\nHost: allowed.example\\r\\nContent-Length: 0\\r\\n"
                       b"Content-Length: %d\\r\\n\\r\\n" % len(smuggled) + smuggled),
    "odd chunks": ask(b"POST / HTTP/1.1\\r\\nHost: allowed.example\\r\\n"
                      b"Transfer-Encoding: xchunked\\r\\n\\r\\n" + smuggled),
    "an upgrade": ask(get(good, more=b"Connection: upgrade\\r\\nUpgrade: websocket\\r\\n"), smuggled),
    "HTTP/2": ask(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n", smuggled),
    "HTTP/2 by upgrade": ask(get(good, more=b"Connection: upgrade, http2-settings\\r\\nUpgrade: h2c\\r\\n"
                                        b"HTTP2-Settings: AAMAAABkAAQAAP__\\r\\n"), smuggled),
    "another port": ask(get(good), port=8080),
    "another port, named": ask(get(b"allowed.example:8080"), port=8080),
    "no HTTP": ask(b"\\r\\n\\r\\n" + smuggled),
    "greeting in pieces": ask(b"G", b"ET / HTTP/1.1\\r\\nHo", b"st: other.example\\r\\n\\r\\n"),
}
together(attempts, width=32)
"""

_UNREADABLE = 7
"""Of the greetings: the server outside takes none of these either."""
GREETINGS = """
def entry(name, kind=0):
    return struct.pack("!BH", kind, len(name)) + name
def names(*entries):
    listed = b"".join(entries)
    return struct.pack("!HHH", 0, len(listed) + 2, len(listed)) + listed
def hello(*extensions):
    groups = bytes.fromhex("000a00040002001700 0b00020100 000d0008000604030401 0804".replace(" ", ""))
    body = b"".join(extensions) + groups
    ciphers = struct.pack("!H6H", 12, 0xC02F, 0xC030, 0xC02B, 0xC02C, 0x9C, 0xFF)
    said = b"\\x03\\x03" + b"r" * 32 + b"\\0" + ciphers + b"\\1\\0"
    said += struct.pack("!H", len(body)) + body
    return b"\\1" + len(said).to_bytes(3, "big") + said
def record(data):
    return struct.pack("!BHH", 22, 0x301, len(data)) + data
def greet(*pieces, address=other, port=443):
    def action():
        data = raw(address, port, *pieces)
        if not data or data == bytes.fromhex("15030300020231"):  # access_denied, from ours
            raise OSError(errno.EACCES, "refused")
        return data[:12].hex()
    return action
def handshake(name, address=other, port=443):
    return lambda: forbidden(encrypted(address, port, name, get(b"other.example")), hosts, addresses)
good, bad = entry(b"allowed.example"), entry(b"other.example")
simple = hello(names(bad))
ech = struct.pack("!HH", 0xFE0D, 80) + b"\\0" + b"e" * 79
attempts = {f"name {host}": handshake(host) for host in spellings}
attempts |= {
    "no name": handshake(None),
    "forged": greet(record(simple)),
    "in two records": greet(record(simple[:60]) + record(simple[60:])),
    "in two records, in pieces": greet(record(simple[:60]), record(simple[60:])),
    "in pieces": greet(record(simple)[:3], record(simple)[3:70], record(simple)[70:]),
    "two names": greet(record(hello(names(good, bad)))),
    "two names, the other way": greet(record(hello(names(bad, good)))),
    "two extensions": greet(record(hello(names(good), names(bad)))),
    "another kind of name": greet(record(hello(names(entry(b"allowed.example", 1), bad)))),
    "NUL": greet(record(hello(names(entry(b"allowed.example\\0.other.example"))))),
    "a homograph": greet(record(hello(names(entry("\\u0430llowed.example".encode()))))),
    "an address": greet(record(hello(names(entry(b"93.184.216.36"))))),
    "empty": greet(record(hello(names(entry(b""))))),
    "hidden": greet(record(hello(ech, names(bad)))),
    "hidden, without a name": greet(record(hello(ech))),
    "old": greet(bytes.fromhex("802e0100020015000000100100800200800600400400800700c00800800500800300800a") + b"x" * 30),
    "other data in the same record": greet(record(simple + b"\\0" * 20)),
    "to another port": greet(record(simple), port=8443),
    "an allowed name to another port": greet(record(hello(names(good))), port=8443),
}
together(attempts, width=32)
"""

LEADS = """
together({
    "plain": lambda: forbidden(raw(other, 80, get(b"ALLOWED.example")), ["x"], addresses),
    "encrypted": lambda: forbidden(encrypted(other, 443, "Allowed.Example", get(b"allowed.example")), ["x"], addresses),
    "below": lambda: forbidden(encrypted(other, 443, "files.packages.example", get(b"files.packages.example")), ["x"],
        addresses),
})
"""

VALUES = {"hosts": HOSTS, "addresses": (NAMES["allowed.example"], NAMES["files.packages.example"])}


@attack(
    "Plain HTTP past an allow list: 40 spellings of hosts (suffixes, user-info, escapes, NUL, homographs, addresses in "
    "every notation), two hosts, targets, CONNECT, smuggled and later requests, HTTP/2, upgrades, other ports",
    expected="no other server answers, and the allowed one is never asked for another host",
    control="the same program on the machine is answered by the other server",
)
def test_requests_past_the_list(networked: Networked) -> None:
    networked.allow(*RULES)
    values = {**VALUES, "spellings": SPELLINGS, "odd": ODD}
    tried = unhindered(PLAIN, **values)
    assert len(done(tried)) >= len(tried) - 14, {name: how for name, how in tried.items() if how[0] != "done"}
    assert done(networked.try_out(PLAIN, **values)) == {}
    assert len(done(networked.try_out(LEADS, **VALUES))) == 3


@attack(
    "TLS past an allow list: other server names, none, an address, NUL, two, hidden ones (ECH), greetings in pieces "
    "and in several records, old ones, other ports",
    expected="no other server answers",
    control="the same program on the machine is answered by it",
)
def test_greetings_past_the_list(networked: Networked) -> None:
    networked.allow(*RULES)
    spellings = tuple(name for name in SPELLINGS if _is_server_name(name))
    values = {**VALUES, "spellings": spellings}
    assert len(spellings) >= 15
    tried = unhindered(GREETINGS, **values)
    assert len(done(tried)) >= len(tried) - _UNREADABLE, {name: how for name, how in tried.items() if how[0] != "done"}
    assert done(networked.try_out(GREETINGS, **values)) == {}


def _is_server_name(name: str) -> bool:
    """Whether a client that is a Python program would say it."""
    try:
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (ValueError, ssl.SSLError):
        return False
    return True


OTHER_WAYS = """
def echoed(port):
    data = datagram(nameserver, port, b"\\xc0" + b"q" * 1199)
    if data[:1] != b"\\xc0":
        raise OSError(errno.EACCES, "somebody else answers")
def icmp():
    message = struct.pack("!BBHHH", 8, 0, 0, 77, 1)
    checksum = ~sum(struct.unpack("!4H", message)) & 0xFFFF
    checksum = ~((sum(struct.unpack("!4H", message)) >> 16) + (sum(struct.unpack("!4H", message)) & 0xFFFF)) & 0xFFFF
    message = message[:2] + struct.pack("!H", checksum) + message[4:]
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as client:
                client.settimeout(2)
                client.sendto(message, (other, 0))
                while True:
                    data, sender = client.recvfrom(200)
                    if data[-8] == 0 and sender[0] == other:
                        return "answered"
        except OSError:
            continue
    raise OSError(errno.EACCES, "no answer")
def sent(family, kind, protocol, address):
    with socket.socket(family, kind, protocol) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"x" * 40, address)
def routed():
    # Loose source route (RFC 791): by way of what is allowed.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(3)
        client.setsockopt(socket.IPPROTO_IP, 4, b"\\x01\\x83\\x07\\x04" + socket.inet_aton(allowed))
        client.connect((other, 7000))
        client.sendall(b"echo")
        return client.recv(4)
def fast_open():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 3, 0))
        client.sendto(b"echo", 0x20000000, (other, 7000))
        client.settimeout(3)
        return client.recv(4) or 1 / 0
def asked(server, how, name):
    query = question(name)
    if how == "udp":
        return records(datagram(server, 53, query))
    answer = raw(server, 53, struct.pack("!H", len(query)) + query)
    return records(answer[2:])
def over_tls(port):
    query = question("other.example")
    return records(encrypted(nameserver, port, None, struct.pack("!H", len(query)) + query)[2:])
together({
    "quic": lambda: echoed(443), "ntp": lambda: echoed(123), "multicast dns": lambda: echoed(5353), "ping": icmp,
    "tcp elsewhere": lambda: raw(other, 7000, b"echo").decode() or 1 / 0,
    "fast open": fast_open,
    "source route": routed,
    "raw": lambda: sent(socket.AF_INET, socket.SOCK_RAW, 255, (other, 0)),
    "tunnel": lambda: sent(socket.AF_INET, socket.SOCK_RAW, 4, (other, 0)),
    "sctp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).connect((other, 7000)),
    **{f"dns {how} {server}": lambda server=server, how=how: asked(server, how, f"{mark}-{how}.other.example")
       for server in (nameserver, "8.8.8.8", "2a00::53") for how in ("udp", "tcp")},
    "dns for what is denied": lambda: asked(nameserver, "udp", "other.example"),
})
"""


@attack(
    "Other ways out of an allow list: QUIC, NTP and multicast DNS over UDP, ICMP, raw IP, tunnels, source routes, "
    "SCTP, TCP to other places, fast open, look-ups of other names over UDP and TCP at three name servers",
    expected="none is answered; no look-up of such a name is seen by the name server outside",
    control="on the machine each that exists is answered, and the look-up is seen",
)
def test_other_ways_past_the_list(networked: Networked) -> None:
    networked.allow(*RULES)
    there = done(unhindered(OTHER_WAYS, mark="unhindered"))
    assert set(there) >= {"quic", "ntp", "ping", "tcp elsewhere", "fast open", "raw", "dns for what is denied"}
    answered = done(networked.try_out(OTHER_WAYS, mark="attacker"))
    if networked.own_kernel:
        answered.pop("raw", None)
        answered.pop("tunnel", None)  # sent into a kernel of its own; nothing of it is carried on
    assert answered == {}
    asked = asked_outside()
    assert "unhindered-udp.other.example" in asked
    assert not [name for name in asked if name.startswith("attacker")]
