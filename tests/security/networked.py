"""Attacks on networks that are open: sandboxes whose only way out leads to the test internet, and their programs."""

import json
import subprocess
import sys
from typing import Any

import dns.message
import dns.query
from tests.internet import MACHINE_ADDRESS
from tests.internet_servers import NAMES, NAMESERVER
from tests.security.ground import Ground, Inside, tenant
from tests.security.programs import Answers, answers_of, program

ALLOWED = NAMES["allowed.example"]
OTHER = NAMES["other.example"]
SECONDS = 30.0

CLIENTS = """
import concurrent.futures, re, ssl, time

def together(attempts, width=24):
    # At once: they do not disturb each other, and those that are refused by silence take their time.
    def one(action):
        try:
            return "done", str(action())
        except OSError as problem:
            return "refused", errno.errorcode.get(problem.errno, str(problem))
        except Exception as problem:
            return "failed", repr(problem)
    with concurrent.futures.ThreadPoolExecutor(width) as pool:
        for name, answer in [(name, pool.submit(one, action)) for name, action in attempts.items()]:
            said[name] = answer.result()

def connected(address, port, seconds=5):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    client.settimeout(seconds)
    client.connect((address, port))
    return client

def received(client, more=0.5):
    data = b""
    try:
        while part := client.recv(65536):
            data += part
            client.settimeout(more)
    except OSError:
        if not data:
            raise
    return data

def raw(address, port, *pieces):
    with connected(address, port) as client:
        for piece in pieces:
            client.sendall(piece)
        return received(client)

def encrypted(address, port, name, request):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connected(address, port) as plain, context.wrap_socket(plain, server_hostname=name) as client:
        client.sendall(request)
        return received(client)

def get(host, path=b"/", more=b""):
    return b"GET " + path + b" HTTP/1.1\\r\\nHost: " + host + b"\\r\\n" + more + b"\\r\\n"

def forbidden(data, hosts=(), addresses=()):
    # Which server has answered, and for which host: what is not among those that are allowed, of at least one answer.
    there = [one.decode() for one in re.findall(rb'"address": "([0-9a-f.:]+)"', data)]
    named = [one.decode() for one in re.findall(rb'"host": "((?:[^"\\\\\\\\]|\\\\\\\\.)*)"', data)]
    if not there:
        raise OSError(errno.EACCES, "no answer of a server")
    bad = [one for one in there if one not in addresses]
    bad += [one for one in named if hosts and one.lower().partition(":")[0].rstrip(".") not in hosts]
    if not bad:
        raise OSError(errno.EXDEV, "only what is allowed has answered")
    return bad

def question(name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", os.getpid() & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)

def records(answer):
    if answer[3] & 15:
        raise OSError(errno.ENOENT, "no such name")
    at = answer.index(0, 12) + 5
    found = []
    for _ in range(struct.unpack_from("!H", answer, 6)[0]):
        while 0 < answer[at] < 192:
            at += 1 + answer[at]
        at += 1 if not answer[at] else 2
        kind, _, _, length = struct.unpack_from("!HHIH", answer, at)
        data = answer[at + 10:at + 10 + length]
        at += 10 + length
        if kind in (1, 28):
            found.append(socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, data))
    return found

def datagram(address, port, data):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.connect((address, port))
        client.send(data)
        return client.recv(4096)
"""
"""For programs inside, and for their controls on the machine."""


class Networked(Ground):
    """The attacker's policy is changed by each test; the victim may reach the whole internet."""

    def allow(self, *allow: str, deny: tuple[str, ...] = ()) -> None:
        """The attacker's policy, from now on."""
        with tenant(self.server, self.red) as client:
            answer = client.put(
                f"/v1/sandboxes/{self.attacker.sandbox_id}/network", json={"allow": list(allow), "deny": list(deny)}
            )
        assert answer.status_code == 200, answer.text

    def try_out(self, text: str, **values: Any) -> Answers:
        """What became of attempts of the attacker."""
        return self.attacker.attack(attacking(text, **values))

    def refusals(self) -> list[str]:
        """Reasons, as the attacker's report has them."""
        with tenant(self.server, self.red) as client:
            report = client.get(f"/v1/sandboxes/{self.attacker.sandbox_id}/network").json()
        return [entry["reason"] for entry in report["entries"] if not entry["allowed"]]


def attacking(text: str, **values: Any) -> str:
    """A whole program with `CLIENTS`."""
    return program(
        CLIENTS + text, allowed=ALLOWED, other=OTHER, machine=MACHINE_ADDRESS, nameserver=NAMESERVER, **values
    )


def unhindered(text: str, **values: Any) -> Answers:
    """The same program on the machine itself, which has no wall."""
    ran = subprocess.run(
        [sys.executable, "-"],
        input=attacking(text, **values),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd="/",
    )
    assert ran.returncode == 0, ran.stderr
    return answers_of(ran.stdout)


def asked_outside() -> list[str]:
    """The latest names that the name server outside was asked for, by anybody."""
    answer = dns.query.udp(dns.message.make_query("asked.example", "TXT"), NAMESERVER, timeout=5)
    texts = [map(str, rrset) for rrset in answer.answer]  # pyright: ignore[reportUnknownArgumentType]
    return [text.strip('"') for some in texts for text in some]


def is_served(victim: Inside) -> bool:
    """Whether the victim reaches the internet."""
    told = victim.command("curl -sS -m 20 http://other.example/")["stdout"]
    return bool(told.startswith("{")) and json.loads(told)["address"] == OTHER
