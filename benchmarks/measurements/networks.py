"""What a sandbox's way out costs: the same client in a sandbox with a policy, and beside it with a direct route.

Both ask the same server, in a network namespace of this machine. A first request makes a connection, with its TLS
handshake; further ones are on a kept connection.
"""

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.bench import Bench
from benchmarks.internet import ADDRESS, NAME, NAMESERVER, on_the_internet, why_not
from benchmarks.outcome import Result, Target
from benchmarks.samples import Distribution, Figure
from benchmarks.yardstick import BrokenProgramError
from cove import Sandbox

_ROUNDS: Final = 20
_CONNECTIONS: Final = 10
_KEPT: Final = 20
_BULK_ROUNDS: Final = 6
_BULK_BYTES: Final = 200_000_000
_SLOWER: Final = 2.0
_UPDATES: Final = 50
_CREATES: Final = 30
_MANY: Final = 200
_MANY_SLOWER: Final = 1.25
_SECONDS: Final = 60.0
_TEMPLATE: Final = "base"
_POLICY: Final = {"allow": [NAME]}
_ANOTHER: Final = {"allow": [NAME, "other.example"]}

_CLIENT: Final = f"""
import json, socket, ssl, sys, time
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
scheme, connections, kept, size = sys.argv[1], *map(int, sys.argv[2:])
request = b"GET /%d HTTP/1.1\\r\\nHost: {NAME}\\r\\n\\r\\n" % size
buffer = bytearray(1 << 20)

def timed(sock):
    began = time.perf_counter()
    sock = sock or connect()
    sock.sendall(request)
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += sock.recv(65536)
    left = size - len(head.partition(b"\\r\\n\\r\\n")[2])
    while left:
        got = sock.recv_into(buffer)
        assert got, "cut"
        left -= got
    return sock, 1000 * (time.perf_counter() - began)

def connect():
    sock = socket.create_connection(("{ADDRESS}", 443 if scheme == "https" else 80), 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock, server_hostname="{NAME}") if scheme == "https" else sock

first, further = [], []
for _ in range(connections):
    sock, took = timed(None)
    first.append(took)
    further += [timed(sock)[1] for _ in range(kept)]
    sock.close()
print(json.dumps([first, further]))
"""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Milliseconds of the requests of one run of the client."""

    first: list[float]
    kept: list[float]


_Client = Callable[..., _Asked]


def measure(bench: Bench) -> list[Result]:
    """All of it, or one row that says why there is nothing to be measured."""
    why = why_not()
    if why:
        return [Result(what="networks", note=why)]
    variables = {"COVE_NAMESERVERS": json.dumps([NAMESERVER])}
    with on_the_internet(), bench.serving(pool_size=0, variables=variables) as server:
        with _sandbox(server.url, _POLICY) as sandbox:
            rows = [*_requests(bench, _inside(sandbox)), *_bulk(bench, _inside(sandbox)), _updates(bench, sandbox)]
        return [*rows, _creates(bench, server.url), _many(bench, server.url)]


def _sandbox(url: str, policy: dict[str, list[str]] | None) -> Sandbox:
    return Sandbox.create(_TEMPLATE, base_url=url, network=policy)


def _inside(sandbox: Sandbox) -> _Client:
    sandbox.files.write("/tmp/client.py", _CLIENT)

    def ask(*, scheme: str = "https", connections: int, kept: int, size: int = 100) -> _Asked:
        words = f"python3 /tmp/client.py {scheme} {connections} {kept} {size}"
        result = sandbox.commands.run(words, timeout=_SECONDS)
        return _read(result.stdout, result.stderr)

    return ask


def _beside(*, scheme: str = "https", connections: int, kept: int, size: int = 100) -> _Asked:
    words = ["/usr/bin/python3", "-c", _CLIENT, scheme, str(connections), str(kept), str(size)]
    done = subprocess.run(words, capture_output=True, timeout=_SECONDS, check=False)
    return _read(done.stdout.decode(), done.stderr.decode())


def _read(stdout: str, stderr: str) -> _Asked:
    try:
        first, kept = json.loads(stdout)
    except ValueError:
        raise BrokenProgramError(f"the client failed: {stderr[-300:]}") from None
    return _Asked(first=first, kept=kept)


def _requests(bench: Bench, inside: _Client) -> list[Result]:
    """A sample is the difference of two medians of runs that follow each other."""
    added: dict[str, list[float]] = {"first": [], "kept": []}
    direct: dict[str, list[float]] = {"first": [], "kept": []}
    for _ in bench.rounds("networks: requests", _ROUNDS):
        ours, theirs = (ask(connections=_CONNECTIONS, kept=_KEPT) for ask in (inside, _beside))
        for name in added:
            bare = statistics.median(getattr(theirs, name))
            direct[name].append(bare)
            added[name].append(statistics.median(getattr(ours, name)) - bare)
    return [
        Result(
            what=f"network: {what}, added by the way out",
            samples=Distribution.of(added[name]),
            targets=(Target(figure=Figure.MEDIAN, at_most=most, relative=False),),
            note=f"beside it, with a direct route: {statistics.median(direct[name]):.2f} ms",
        )
        for name, what, most in (
            ("first", "first HTTPS request of a connection", 5.0),
            ("kept", "HTTPS request on a kept connection", 1.0),
        )
    ]


def _bulk(bench: Bench, inside: _Client) -> list[Result]:
    rows: list[Result] = []
    for scheme in ("https", "http"):
        ours: list[float] = []
        theirs: list[float] = []
        for _ in bench.rounds(f"networks: bulk, {scheme}", _BULK_ROUNDS):
            ours += inside(scheme=scheme, connections=1, kept=0, size=_BULK_BYTES).first
            theirs += _beside(scheme=scheme, connections=1, kept=0, size=_BULK_BYTES).first
        bound = round(_SLOWER * statistics.median(theirs), 1)
        rows.append(
            Result(
                what=f"network: download of {_BULK_BYTES // 1_000_000} MB by {scheme.upper()}",
                samples=Distribution.of(ours),
                targets=(Target(figure=Figure.MEDIAN, at_most=bound, relative=False),),
                note=f"the bound is {_SLOWER:g} times the median with a direct route: at least half its speed",
            )
        )
    return rows


def _updates(bench: Bench, sandbox: Sandbox) -> Result:
    samples: list[float] = []
    for number in bench.rounds("networks: updates", _UPDATES):
        policy = (_POLICY, _ANOTHER)[number % 2]
        samples.append(_timed(lambda policy=policy: sandbox.network.update(allow=policy["allow"])))
    return Result(
        what="network: change of a running sandbox's policy, in force when the SDK's call returns",
        samples=Distribution.of(samples),
        targets=(Target(figure=Figure.MEDIAN, at_most=50, relative=False),),
    )


def _creates(bench: Bench, url: str) -> Result:
    _create(url, _POLICY)
    added: list[float] = []
    bare: list[float] = []
    for _ in bench.rounds("networks: creates", _CREATES):
        ours, theirs = _create(url, _POLICY), _create(url, None)
        added.append(ours - theirs)
        bare.append(theirs)
    return Result(
        what="network: create with a policy, added to one without",
        samples=Distribution.of(added),
        targets=(Target(figure=Figure.MEDIAN, at_most=3, relative=False),),
        note=f"without: {statistics.median(bare):.2f} ms, SDK, no pool",
    )


def _create(url: str, policy: dict[str, list[str]] | None) -> float:
    made: list[Sandbox] = []
    took = _timed(lambda: made.append(_sandbox(url, policy)))
    made[0].kill()
    return took


def _many(bench: Bench, url: str) -> Result:
    """Two hundred sandboxes slow a machine by being there: the direct route, measured in between, tells how much."""
    sandboxes = [_sandbox(url, _POLICY)]
    try:
        inside = _inside(sandboxes[0])
        alone, alone_direct = _side_by_side(inside)
        sandboxes += [_sandbox(url, _POLICY) for _ in bench.rounds("networks: many sandboxes", _MANY - 1)]
        among, among_direct = _side_by_side(inside)
    finally:
        for sandbox in sandboxes:
            sandbox.kill()
    once, slower = statistics.median(alone), statistics.median(among_direct) / statistics.median(alone_direct)
    return Result(
        what=f"network: HTTPS request on a kept connection, one of {len(sandboxes)} sandboxes with a policy each",
        samples=Distribution.of(among),
        targets=(Target(figure=Figure.MEDIAN, at_most=round(_MANY_SLOWER * slower * once, 3), relative=False),),
        note=f"the bound is {_MANY_SLOWER:g} times the median of one sandbox alone ({once:.3f} ms) x {slower:.2f}: "
        "by that the direct route was slower then",
    )


def _side_by_side(inside: _Client) -> tuple[list[float], list[float]]:
    """Of requests in the sandbox, and by the direct route."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(max(2, _ROUNDS // 2)):
        ours += inside(connections=1, kept=_KEPT).kept
        theirs += _beside(connections=1, kept=_KEPT).kept
    return ours, theirs


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)
