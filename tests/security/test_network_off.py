"""Off means off: nothing inside reaches the host, its services, other sandboxes or names."""

import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.security.attacks import attack
from tests.security.ground import Ground
from tests.security.programs import control, done, program

ATTEMPTS = """
def tcp(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        client.connect(address)
        if client.recv(4) != b"host":
            raise OSError(errno.ECONNREFUSED, "not the host")
def udp(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.sendto(b"hello", address)
        if client.recv(4) != b"host":
            raise OSError(errno.ECONNREFUSED, "not the host")
for name, family, address in targets:
    kind = tcp if name.startswith("tcp") else udp
    attempt(name, lambda: kind(getattr(socket, family), tuple(address)))
"""

ELSEWHERE = """
def send(family, kind, protocol, address, data=b"x" * 16):
    with socket.socket(family, kind, protocol) as client:
        client.settimeout(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.connect(address)
        client.send(data)
        if answered and kind == socket.SOCK_DGRAM:
            client.recv(64)
I, I6, S, D, R = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
for host in ("169.254.169.254", "100.100.100.200", "192.0.2.1", "10.0.0.1", "172.17.0.1", "192.168.0.1", "8.8.8.8"):
    attempt("tcp " + host, lambda: send(I, S, 0, (host, 80)))
    attempt("udp " + host, lambda: send(I, D, 0, (host, 53)))
attempt("quic", lambda: send(I, D, 0, ("192.0.2.1", 443), b"\\xc0" * 1200))
attempt("broadcast", lambda: send(I, D, 0, ("255.255.255.255", 67)))
attempt("multicast", lambda: send(I, D, 0, ("224.0.0.251", 5353)))
attempt("ping", lambda: send(I, D, 1, ("192.0.2.1", 0), struct.pack("BBHHH", 8, 0, 0, 1, 1)))
attempt("raw icmp", lambda: send(I, R, 1, ("192.0.2.1", 0)))
attempt("raw ip", lambda: send(I, R, 255, ("192.0.2.1", 0)))
for host in ("fd00:ec2::254", "2001:db8::1", "ff02::1%1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"):
    attempt("tcp6 " + host, lambda: send(I6, S, 0, (host.partition("%")[0], 80, 0, 1 if "%" in host else 0)))
    attempt("udp6 " + host, lambda: send(I6, D, 0, (host.partition("%")[0], 53, 0, 1 if "%" in host else 0)))
attempt("packet", lambda: socket.socket(17, R).close())
attempt("vsock", lambda: socket.socket(40, S).close())
attempt("sctp", lambda: send(I, S, 132, ("192.0.2.1", 80)))
attempt("mptcp", lambda: send(I, S, 262, ("192.0.2.1", 80)))
attempt("bluetooth", lambda: socket.socket(31, R).close())
for name in ("localhost.example.org", "example.com", "metadata.google.internal", "host.docker.internal"):
    attempt("name " + name, lambda: socket.getaddrinfo(name, 80))
"""


@contextmanager
def listeners() -> Generator[list[tuple[str, str, tuple[str, int]]]]:
    """Services of the host that answer `host`: on loopback, and on its address where it has one."""
    with ExitStack() as stack:
        targets: list[tuple[str, str, tuple[str, int]]] = []
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, _address())):
            for name, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
                listener = stack.enter_context(socket.socket(family, kind))
                try:
                    listener.bind((host, 0))
                except OSError:
                    continue  # this machine has no such address
                serve = _serve_streams if kind == socket.SOCK_STREAM else _serve_datagrams
                thread = threading.Thread(target=serve, args=(listener,), daemon=True)
                stack.callback(thread.join, 5)
                stack.callback(_shut, listener)
                if kind == socket.SOCK_STREAM:
                    listener.listen()
                thread.start()
                targets.append((f"{name} {host}", family.name, (host, listener.getsockname()[1])))
        yield targets


def _shut(listener: socket.socket) -> None:
    with suppress(OSError):  # of a datagram socket it wakes the reader all the same
        listener.shutdown(socket.SHUT_RDWR)


def _serve_streams(listener: socket.socket) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            client.sendall(b"host")


def _serve_datagrams(listener: socket.socket) -> None:
    while True:
        try:
            data, sender = listener.recvfrom(64)
        except OSError:
            return
        if not data:
            return
        listener.sendto(b"host", sender)


def _address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


@attack(
    "Services of the host over TCP and UDP: its loopback (both versions), its address, the server's own port",
    expected="unreachable",
    control="the same program on the host reaches all of them",
)
def test_services_of_the_host(ground: Ground) -> None:
    with listeners() as targets:
        source = program(ATTEMPTS, targets=targets)
        assert len(targets) >= 4
        assert set(done(control(source, namespaces=""))) == {name for name, _, _ in targets}
        assert done(ground.attacker.attack(source)) == {}
    port = int(ground.server.url.rpartition(":")[2])
    for host in ("127.0.0.1", _address()):
        knock = f"(exec 3<>/dev/tcp/{host}/{port}) 2>/dev/null && echo reached"
        assert ground.attacker.command(knock)["stdout"] == ""


@attack(
    "Anything else: metadata, private and public addresses, IPv6, QUIC, DNS, ICMP, multicast, raw, other families",
    expected="no route, no name, no such socket; the sandbox has no interface that leads anywhere",
    control="on the host sockets of these kinds can be made, and datagrams leave for its own addresses",
)
def test_every_other_way(ground: Ground) -> None:
    sockets = """
attempt("packet", lambda: socket.socket(17, socket.SOCK_RAW).close())
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
attempt("name", lambda: socket.getaddrinfo("localhost", 80))
def loop():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.1", 9))
attempt("datagram", loop)
"""
    assert set(done(control(program(sockets), namespaces="-n"))) >= {"packet", "raw", "name"}
    # A datagram may leave a kernel of the sandbox's own: what it reaches is the other end of a wire, where nobody is.
    assert done(ground.attacker.attack(program(ELSEWHERE, answered=ground.own_kernel))) == {}
    record = ground.server.record(ground.attacker.sandbox_id)
    assert record
    interfaces = Path(f"/proc/{record['pid']}/net/dev").read_text()
    names = {line.partition(":")[0].strip() for line in interfaces.splitlines() if ":" in line}
    assert names == ({"lo", "eth0", "wire0"} if ground.own_kernel else {"lo"})


@attack(
    "The victim's sandbox from the attacker's: a service on all of its addresses",
    expected="unreachable, though the victim reaches itself",
    control="the victim reaches its service",
)
def test_services_of_another_sandbox(ground: Ground) -> None:
    serve = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8123, bind='0.0.0.0')"
    started = ground.victim.http.post("/commands/background", json={"command": f'python3 -c "{serve}"', "timeout": 60})
    assert started.status_code < 300, started.text
    process = started.json()["process_id"]
    knock = "for n in $(seq 50); do (exec 3<>/dev/tcp/{host}/8123) 2>/dev/null && echo reached && break; {wait}; done"
    try:
        assert "reached" in ground.victim.command(knock.format(host="127.0.0.1", wait="sleep 0.1"))["stdout"]
        for host in ("127.0.0.1", "0.0.0.0", "::1", _address()):
            knocked = ground.attacker.command(knock.format(host=host, wait="break"))
            assert "reached" not in knocked["stdout"], host
    finally:
        ground.victim.http.post(f"/execute/kill/{process}")
