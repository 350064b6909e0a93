"""The walls of open networks themselves: their rules and sockets, changes, death, and too much of everything."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, until
from tests.internet import Internet
from tests.security.attacks import attack
from tests.security.ground import Ground, Inside, make_sandbox, resident_bytes, tenant
from tests.security.networked import Networked, attacking, is_served
from tests.security.programs import control, done
from tests.security.test_network_names import OTHER_WAYS, RULES

SECONDS = 60.0
TEMPLATE = "root-with-network"

RULES_INSIDE = """
def message(kind, body, flags=0x405, number=1):
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body
def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
def netlink(protocol, *messages):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as client:
        client.settimeout(3)
        client.send(b"".join(messages))
        answer = client.recv(65536)
        code = struct.unpack_from("=i", answer, 16)[0]
        if code:
            raise OSError(-code, "refused")
def rules(kind, name):
    def edge(kind, number):
        return message(kind, struct.pack("!BBH", 0, 0, 10), 1, number)
    body = struct.pack("=BBH", 1, 0, 0) + attribute(1, name)
    return lambda: netlink(12, edge(16, 1), message(10 << 8 | kind, body, number=2), edge(17, 3))
def option(family, level, number):
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setsockopt(level, number, 1)
def taken(port, kind):
    with socket.socket(socket.AF_INET, kind) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        client.bind(("127.0.0.1", port))
attempt("link", lambda: netlink(0, message(16, struct.pack("=BBHiII", 0, 0, 0, 1, 1, 1))))
attempt("address", lambda: netlink(0, message(20, struct.pack("=BBBBI", 2, 8, 0, 0, 1)
                                              + attribute(2, b"\\x0a\\x09\\x09\\x09"))))
attempt("route", lambda: netlink(0, message(24, struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 4, 253, 1, 0)
                                            + attribute(1, b"\\xc0\\0\\x02\\0") + attribute(4, struct.pack("=I", 1)))))
attempt("new rules", rules(0, b"mine\\0"))
attempt("no rules", rules(2, b"cove\\0" if inside else b"mine\\0"))
attempt("transparent", lambda: option(socket.AF_INET, socket.IPPROTO_IP, 19))
attempt("mark", lambda: option(socket.AF_INET, socket.SOL_SOCKET, 36))
attempt("port of the streams", lambda: taken(1, socket.SOCK_STREAM))
attempt("port of the names", lambda: taken(53, socket.SOCK_DGRAM))
attempt("another network", lambda: libc.unshare(0x40000000) and call(-1))
"""

DIRECTLY = """
def echoed():
    records(datagram(nameserver, 53, question("allowed.example")))  # that opens the port to its address
    return raw(allowed, 7000, b"echo").decode()
together({
    "allowed": lambda: echoed(),
    **{f"direct {host} {what}": lambda host=host, data=data: raw(host, 1, data) or 1 / 0
       for host in ("127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1")
       for what, data in (("plain", get(b"allowed.example")), ("bytes", b"echo"), ("other", get(b"other.example")))},
    **{f"names {host}": lambda host=host: records(datagram(host, 53, question("other.example")))
       for host in ("127.0.0.1", "::1", "0.0.0.0")},
})
"""


@pytest.fixture(scope="module")
def template(connected: RunningServer, shared_networked: Networked, internet: Internet) -> Iterator[str]:
    """Of the attacker's: its programs run as root."""
    body = {"name": f"{TEMPLATE}-{shared_networked.driver}", "from_image": "base", "run_as_root": True, "diskGB": 1}
    with internet.on_machine(), tenant(connected, shared_networked.red) as client:
        accepted = client.post("/v1/templates/build", json=body)
        assert accepted.status_code < 300, accepted.text
        address = f"/v1/templates/build/{accepted.json()['build_id']}/status"
        until(lambda: client.get(address).json()["status"] != "building", seconds=SECONDS, what="the build ends")
    yield str(body["name"])


@attack(
    "Programs, also root's in a template with `run_as_root`: change links, addresses, routes and rules of their "
    "network, take the ports that capture, speak to these directly, enter another network; then all other ways out",
    expected="refused, or without effect: nothing is reached that was not before",
    control="root in a network namespace of its own can; what is allowed answers",
)
def test_rules_and_sockets_that_capture(networked: Networked, template: str) -> None:
    networked.allow(*RULES)
    able = done(control(attacking(RULES_INSIDE, inside=False), namespaces="-n"))
    assert set(able) >= {"link", "address", "route", "new rules", "no rules", "transparent", "mark"}
    root = make_sandbox(
        networked.server, networked.red, networked.driver, template_name=template, network={"allow": list(RULES)}
    )
    try:
        assert root.command("id -u")["stdout"].strip() == "0"
        for sandbox in (networked.attacker, root):
            changed = done(sandbox.attack(attacking(RULES_INSIDE, inside=True)))
            assert networked.own_kernel or changed == {}
            reached = done(sandbox.attack(attacking(DIRECTLY)))
            assert reached == {"allowed": "echo"}
            others = set(done(sandbox.attack(attacking(OTHER_WAYS, mark="root"))))
            assert others <= ({"raw", "tunnel"} if networked.own_kernel else set())
            assert is_served(sandbox) is False
    finally:
        root.kill()


HOLDING = """
import pathlib
def held(address, port, name=None):
    client = connected(address, port)
    if name:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = context.wrap_socket(client, server_hostname=name)
    return client
def ask(client, data, answer):
    client.sendall(data)
    if answer not in client.recv(65536):
        raise OSError(errno.EACCES, "refused")
request = get(b"other.example")
records(datagram(nameserver, 53, question("other.example")))
ways = {"echo": (held(other, 7000), b"echo", b"echo"), "tls": (held(other, 443, "other.example"), request, b"200 OK"),
        "plain": (held(other, 80), request, b"200 OK")}
for way in ways.values():
    ask(*way)
pathlib.Path("/tmp/held").touch()
until = time.monotonic() + 60
while not os.path.exists("/tmp/narrowed") and time.monotonic() < until:
    time.sleep(0.02)
together({name: lambda way=way: ask(*way) for name, way in ways.items()})
"""


@attack(
    "Go on using open connections after the policy was narrowed: bytes, TLS, requests of a kept connection",
    expected="cut when the change is answered",
    control="they work until then",
)
def test_connections_that_are_not_allowed_any_more(networked: Networked) -> None:
    networked.attacker.command("rm -f /tmp/held /tmp/narrowed")
    networked.allow("other.example", "other.example:7000")
    with _background(networked.attacker, attacking(HOLDING)) as output:
        _wait_for(networked.attacker, "/tmp/held")
        networked.allow(*RULES)
        until(lambda: _open_connections(networked) == 0, seconds=SECONDS, what="they are cut")
        networked.attacker.command("touch /tmp/narrowed")
        said = json.loads(until(output, seconds=SECONDS, what="it has tried"))
    assert set(said) == {"echo", "tls", "plain"}
    assert not [name for name, (how, _) in said.items() if how == "done"]


TRYING = """
import pathlib
request = get(b"other.example")
forbiddens = {
    "plain": lambda: forbidden(raw(other, 80, request)), "tls": lambda: encrypted(other, 443, "other.example", request),
    "elsewhere": lambda: raw(other, 7000, b"echo") or 1 / 0, "fronted": lambda: forbidden(raw(allowed, 80, request)),
    "private": lambda: forbidden(raw("10.0.0.7", 80, get(b"10.0.0.7"))),
    "machine": lambda: raw(machine, 22, b"x") or 1 / 0,
    "name": lambda: records(datagram(nameserver, 53, question("other.example"))),
}
reached, rounds, answered = {}, 0, 0
until = time.monotonic() + 90
while not os.path.exists("/tmp/stop") and time.monotonic() < until:
    together(forbiddens)
    reached |= {name: how for name, how in said.items() if how[0] == "done"}
    rounds += 1
    try:
        records(datagram(nameserver, 53, question("allowed.example")))
        answered += raw(allowed, 7000, b"echo") == b"echo"
    except OSError:
        continue
    pathlib.Path("/tmp/tried").write_text(str(answered))
said = {"reached": reached, "rounds": rounds, "answered": answered}
"""


@attack(
    "Forbidden places, over and over, while the egress program and then the host daemon are killed (SIGKILL)",
    expected="never reached; what is allowed works again soon",
    control="what is allowed is reached before and after",
)
def test_death_opens_nothing(shared_networked: Networked, internet: Internet) -> None:
    with internet.on_machine():
        ground = shared_networked
        ground.allow(*RULES)
        ground.attacker.command("rm -f /tmp/stop /tmp/tried")
        with _background(ground.attacker, attacking(TRYING)) as output:
            _wait_for(ground.attacker, "/tmp/tried")
            for process in (_egress, _daemon):
                os.kill(process(ground), signal.SIGKILL)
                seen = _number(ground.attacker)
                until(lambda seen=seen: _number(ground.attacker) > seen + 1, seconds=SECONDS, what="it works again")
            ground.attacker.command("touch /tmp/stop")
            said = json.loads(until(output, seconds=SECONDS, what="it has stopped"))
        assert said["reached"] == {}
        assert said["rounds"] >= 4
        until(lambda: _tolerant(is_served, ground.victim), seconds=SECONDS, what="the victim is served")
        until(lambda: _takes_policies(ground), seconds=SECONDS, what="another host daemon is there")


FLOOD = """
import pathlib, resource
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
hello = b"\\x16\\x03\\x01\\x02\\0\\x01\\0\\x01\\xfc\\x03\\x03"
kinds = ((443, hello), (80, b"GET / HTTP/1.1\\r\\nHost: allo"), (443, b""), (53, b"\\x04"), (7000, b"x"))
children = []
for child in range(4):
    if not os.fork():
        signal.alarm(60)
        held = []
        for number in range(500):
            port, said_first = kinds[number % len(kinds)]
            client = socket.socket()
            client.setblocking(False)
            try:
                client.connect((other, port))
            except BlockingIOError:
                pass
            held.append((client, said_first))
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.setblocking(False)
        number = 0
        while not os.path.exists("/tmp/enough"):
            for client, said_first in held:
                try:
                    client.send(said_first[:1 + number % 8] or b"")
                except OSError:
                    pass
            for _ in range(100):
                number += 1
                try:
                    names.sendto(question(f"n{child}-{number}.other.example"), (nameserver, 53))
                except OSError:
                    pass
            pathlib.Path("/tmp/flooding").touch()
            time.sleep(0.3)
        os._exit(0)
    children.append(child)
for _ in children:
    os.wait()
"""


@attack(
    "2000 connections at once (greetings and requests that never end, silent ones, half messages to name servers) and "
    "a thousand look-ups a second of names that do not exist",
    expected="the victim's requests take seconds at most, the program's memory stays bounded; then its descriptors and "
    "connections are those from before",
    control="the attacker's own report has hundreds of connections at once",
)
def test_too_much_of_everything(networked: Networked) -> None:
    networked.allow("*")
    attacker = networked.attacker
    attacker.command("rm -f /tmp/enough /tmp/flooding")
    program = _egress(networked)
    descriptors, memory = len(list(Path(f"/proc/{program}/fd").iterdir())), resident_bytes(program)
    with _background(attacker, attacking(FLOOD)) as output:
        _wait_for(attacker, "/tmp/flooding")
        until(lambda: _open_connections(networked) >= 200, seconds=SECONDS, what="many connections are open")
        for _ in range(3):
            took = networked.victim.command(
                "curl -sS -m 20 -o /dev/null -w '%{http_code} %{time_total}' https://other.example/ --insecure"
            )["stdout"].split()
            assert took[0] == "200"
            assert float(took[1]) < 8, took
        assert resident_bytes(program) - memory < 64 * 1024 * 1024
        assert _open_connections(networked) <= 512
        attacker.command("touch /tmp/enough")
        until(output, seconds=SECONDS, what="it has stopped")
    until(
        lambda: len(list(Path(f"/proc/{program}/fd").iterdir())) <= descriptors + 140,
        seconds=SECONDS,
        what="its descriptors are closed",
    )
    assert _egress(networked) == program
    until(lambda: _open_connections(networked) == 0, seconds=SECONDS, what="all connections have ended")


@contextlib.contextmanager
def _background(sandbox: Inside, source: str) -> Generator[Callable[[], str]]:
    """A program that goes on meanwhile; what it has printed once it has ended."""
    path = "/tmp/meanwhile"
    sandbox.write(f"{path}.py", source)
    sandbox.command(f"rm -f {path}.out {path}.err")
    run = f"python3 {path}.py >{path}.new 2>{path}.err; mv {path}.new {path}.out"
    started = sandbox.http.post("/commands/background", json={"command": run, "timeout": 120})
    assert started.status_code < 300, started.text

    def output() -> str:
        result = sandbox.command(f"cat {path}.out {path}.err 2>/dev/null")
        return str(result["stdout"]).strip() if sandbox.command(f"test -e {path}.out")["exit_code"] == 0 else ""

    try:
        yield output
    finally:
        sandbox.http.post(f"/execute/kill/{started.json()['process_id']}")


def _wait_for(sandbox: Inside, path: str) -> None:
    until(lambda: sandbox.command(f"test -e {path}")["exit_code"] == 0, seconds=SECONDS, what=f"{path} is there")


def _number(sandbox: Inside) -> int:
    """Of the times that the program has reached what is allowed; -1 while the sandbox cannot be asked."""
    try:
        return int(sandbox.command("cat /tmp/tried")["stdout"] or 0)
    except (AssertionError, httpx2.HTTPError):
        return -1


def _tolerant(check: Callable[[Inside], bool], sandbox: Inside) -> bool:
    try:
        return check(sandbox)
    except (AssertionError, httpx2.HTTPError):
        return False


def _takes_policies(ground: Networked) -> bool:
    try:
        ground.allow(*RULES)
    except (AssertionError, httpx2.HTTPError):
        return False
    return ground.server.host_daemon() is not None


def _open_connections(ground: Networked) -> int:
    with tenant(ground.server, ground.red) as client:
        report = client.get(f"/v1/sandboxes/{ground.attacker.sandbox_id}/network").json()
    return int(report["totals"]["open_connections"])


def _egress(ground: Ground) -> int:
    """The process of the egress program."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"cove.egress" in words and any(str(ground.server.data_dir).encode() in word for word in words):
                return int(path.parent.name)
    raise AssertionError("the egress program does not run")


def _daemon(ground: Ground) -> int:
    process = ground.server.host_daemon()
    assert process
    return process.pid
