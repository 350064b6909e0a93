"""A program in a sandbox asked through the gateway, beside the same program on the host asked directly.

`wrk` asks with 16 connections for small and for large answers. A sample is the mean time per answer of one run, so the
ratio to the direct one is the inverse of that of the throughputs. On two processors `wrk`, the program and the gateway
compete: for a program that is slower than the gateway the ratio tells what the gateway costs, for a faster one it tells
how fast the gateway is.
"""

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from benchmarks.bench import Bench
from benchmarks.clients import TEMPLATE, RawClient
from benchmarks.outcome import Result, Target
from benchmarks.samples import Distribution, Figure
from benchmarks.yardstick import BrokenProgramError

_ROUNDS: Final = 10
_SECONDS: Final = 30.0
_PORT: Final = 3000
_AT_LEAST: Final = 0.6
_TARGETS: Final = (Target(figure=Figure.MEDIAN, at_most=round(1 / _AT_LEAST, 2)),)
_RATE: Final = re.compile(r"Requests/sec:\s+([0-9.]+)")
_FAILED: Final = re.compile(r"Socket errors:.*|Non-2xx.*")

_PYTHON: Final = """
import http.server, sys
small, large = b"hello" * 20, b"x" * 1_000_000
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1
    def do_GET(self):
        body = large if self.path == "/large" else small
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    def handle_error(self, *arguments):
        pass
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
_NODE: Final = """
const http = require("http");
const small = Buffer.from("hello".repeat(20)), large = Buffer.alloc(1000000, "x");
http.createServer((request, response) => {
  const body = request.url === "/large" ? large : small;
  response.writeHead(200, {"Content-Type": "text/plain", "Content-Length": body.length});
  response.end(body);
}).listen(Number(process.argv[process.argv.length - 1]), "127.0.0.1");
"""


@dataclass(frozen=True, kw_only=True)
class _Program:
    """A web server.

    Attributes:
        words: the command, to be followed by the port.
    """

    name: str
    words: tuple[str, ...]
    targets: tuple[Target, ...]


_PROGRAMS: Final = (
    _Program(name="Python's http.server", words=("python3", "-c", _PYTHON), targets=_TARGETS),
    _Program(name="Node's http", words=("node", "-e", _NODE, "--"), targets=()),
)
_ANSWERS: Final = (("100 B", "/small"), ("1 MB", "/large"))


def measure(bench: Bench) -> list[Result]:
    """Each program with each size of answer."""
    if shutil.which("wrk") is None:
        return [_absent("preview of a program", "wrk is not installed (package wrk)")]
    return [result for program in _PROGRAMS for result in _measure(bench, program)]


def _measure(bench: Bench, program: _Program) -> list[Result]:
    if shutil.which(program.words[0]) is None:
        return [_absent(f"preview of {program.name}", f"{program.words[0]} is not installed on the host")]
    with (
        bench.serving(pool_size=0) as server,
        RawClient(server.url) as client,
        _on_host(program) as direct,
    ):
        created = client.call("POST", "/v1/sandboxes", {"template_name": TEMPLATE, "timeout_seconds": 900})
        _start_inside(client, created, program)
        preview = f"{server.url}/sandboxes/{created['id']}/ports/{_PORT}"
        _wait(preview)
        return [
            _compare(
                bench, f"preview of {program.name}, {size}: mean time of an answer", direct, preview, path, program
            )
            for size, path in _ANSWERS
        ]


def _compare(bench: Bench, what: str, direct: str, preview: str, path: str, program: _Program) -> Result:
    bare: list[float] = []
    through: list[float] = []
    for _ in bench.rounds(what, _ROUNDS):
        bare.append(_mean_milliseconds(direct + path))
        through.append(_mean_milliseconds(preview + path))
    samples, yardstick = Distribution.of(through), Distribution.of(bare)
    return Result(
        what=what,
        samples=samples,
        yardstick=yardstick,
        targets=program.targets,
        note=f"beside the same program on the host: {1000 / samples.median:.0f} of {1000 / yardstick.median:.0f} "
        f"answers a second, {yardstick.median / samples.median:.2f}x",
    )


def _mean_milliseconds(url: str) -> float:
    """One second of wrk.

    Raises:
        BrokenProgramError: an answer failed.
    """
    words = ["wrk", "-t1", "-c16", "-d1s", url]
    said = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
    rate = _RATE.search(said)
    if rate is None or _FAILED.search(said) or not float(rate[1]):
        raise BrokenProgramError(f"wrk {url}: {said[-300:]}")
    return 1000 / float(rate[1])


@contextlib.contextmanager
def _on_host(program: _Program) -> Generator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    words = [sys.executable if word == "python3" else word for word in program.words]
    process = subprocess.Popen([*words, str(port)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(_SECONDS)


def _start_inside(client: RawClient, created: dict[str, object], program: _Program) -> None:
    words = [*program.words, str(_PORT)]
    code = f"import subprocess; subprocess.Popen({words!r}, stdout=subprocess.DEVNULL)"
    agent = urlsplit(str(created["public_host"])).path
    answer = client.call("POST", f"{agent}/execute", {"code": code, "language": "python"}, str(created["auth_token"]))
    if not answer["success"]:
        raise BrokenProgramError(f"{program.name} did not start: {answer['stderr']}")


def _wait(url: str) -> None:
    """Return when `url` answers."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{url}/small", timeout=_SECONDS):
            return
        time.sleep(0.05)
    raise BrokenProgramError(f"{url} did not answer.")


def _absent(what: str, why: str) -> Result:
    return Result(what=what, targets=_TARGETS, note=f"not measured: {why}")
