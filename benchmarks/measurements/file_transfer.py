"""Files in and out of a running sandbox: small ones by time, large ones by time and by memory."""

import base64
import http.client
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.bench import Bench, Interleaved
from benchmarks.clients import TEMPLATE, RawClient
from benchmarks.outcome import Result, Target, Unit
from benchmarks.process_tree import Process, recorded, trees
from benchmarks.samples import Distribution, Figure
from benchmarks.serving import Server
from benchmarks.yardstick import BrokenProgramError

_MB: Final = 1_000_000
_LARGE_MB: Final = 100
_SAMPLES: Final = 100
_LARGE_SAMPLES: Final = 10
_BETWEEN_COMPARISONS: Final = 5
_SECONDS: Final = 120.0
_PATH: Final = "/workspace/file"
_BOUNDARY: Final = "boundary"
_ENTRIES: Final = 100_000
_SMALL_FILES: Final = 580
_FAST: Final = (Target(figure=Figure.MEDIAN, at_most=0.5),)
_LEAN: Final = (Target(figure=Figure.WORST, at_most=20, relative=False),)
_MANY: Final = f"""
import os
os.makedirs('/workspace/many')
for number in range({_ENTRIES}):
    open(f'/workspace/many/file-{{number:06}}.txt', 'w').close()
"""


@dataclass(frozen=True)
class _Content:
    """A request's body and what describes it."""

    type: str
    length: int
    pieces: Callable[[], Iterator[bytes]]


class _Agent:
    """The file routes of one sandbox, on one connection that is kept alive."""

    def __init__(self, url: str, created: dict[str, Any]) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_SECONDS)
        self._prefix = urlsplit(str(created["public_host"])).path.rstrip("/")
        self._authorization = f"Bearer {created['auth_token']}"

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, method: str, target: str, content: _Content | None = None) -> int:
        """Send a request, read the answer in pieces; how many bytes it has.

        Raises:
            BrokenProgramError: the answer is an error.
        """
        headers = {"Authorization": self._authorization}
        if content is not None:
            headers |= {"Content-Type": content.type, "Content-Length": str(content.length)}
        body = None if content is None else content.pieces()
        self._connection.request(method, self._prefix + target, body, headers)
        response = self._connection.getresponse()
        first = response.read(256 * 1024)
        if response.status != 200:
            raise BrokenProgramError(f"{method} {target}: {response.status} {first[:300].decode(errors='replace')}")
        size = len(first)
        while piece := response.read(256 * 1024):
            size += len(piece)
        return size


def measure(bench: Bench) -> list[Result]:
    """One sandbox, one client over bare HTTP."""
    with bench.serving(pool_size=0) as server, RawClient(server.url) as raw:
        agent = _Agent(server.url, raw.call("POST", "/v1/sandboxes", {"template_name": TEMPLATE}))
        try:
            return [
                *_small(bench, agent),
                *_large(bench, agent, server),
                *_directories(bench, agent, server),
            ]
        finally:
            agent.close()


def _small(bench: Bench, agent: _Agent) -> list[Result]:
    data = os.urandom(_MB)
    text = _json({"path": _PATH, "content": "x" * _MB})
    encoded = _json({"path": _PATH, "content": base64.b64encode(data).decode(), "encoding": "base64"})
    form = _form(_MB)
    calls: tuple[tuple[str, Callable[[], int], tuple[Target, ...]], ...] = (
        (
            "1 MB file written as JSON (200 MB/s are 5 ms, half of a yardstick of 10 ms)",
            lambda: agent.ask("POST", "/files/write", text),
            _FAST,
        ),
        ("the same as JSON with base64", lambda: agent.ask("POST", "/files/write", encoded), ()),
        ("1 MB file uploaded", lambda: agent.ask("POST", "/files/upload", form), _FAST),
        ("1 MB file downloaded", lambda: agent.ask("GET", f"/files/download?path={_PATH}"), _FAST),
    )
    results = [_timed(bench, what, call, samples=_SAMPLES, size=1, targets=targets) for what, call, targets in calls]
    agent.ask("POST", "/files/write", text)
    what = "1 MB file read as JSON"
    results.append(
        _timed(
            bench, what, lambda: agent.ask("GET", f"/files/read?path={_PATH}"), samples=_SAMPLES, size=1, targets=_FAST
        )
    )
    return results


def _large(bench: Bench, agent: _Agent, server: Server) -> list[Result]:
    form = _form(_LARGE_MB * _MB)
    memory = _Peaks(server)
    up = memory.around(lambda: agent.ask("POST", "/files/upload", form))
    down = memory.around(lambda: agent.ask("GET", f"/files/download?path={_PATH}"))
    size, count = _LARGE_MB, _LARGE_SAMPLES
    results = [
        _timed(bench, f"{size} MB file uploaded", up, samples=count, size=size),
        _timed(bench, f"{size} MB file downloaded", down, samples=count, size=size),
    ]
    return [*results, *memory.results(f"{size} MB are streamed up and down")]


def _directories(bench: Bench, agent: _Agent, server: Server) -> list[Result]:
    many = _json({"code": _MANY, "language": "python", "timeout": _SECONDS})
    agent.ask("POST", "/execute", many)
    memory = _Peaks(server)
    listing = memory.around(lambda: agent.ask("GET", "/files/list?path=/workspace/many"))
    slow = (Target(figure=Figure.MEDIAN, at_most=200),)
    listed = _timed(
        bench, f"directory of {_ENTRIES} entries listed", listing, samples=_LARGE_SAMPLES, size=0, targets=slow
    )
    archive = _archive()

    def both_ways() -> int:
        agent.ask("PUT", "/files/archive?path=/workspace/tree", archive)
        return agent.ask("GET", "/files/archive?path=/workspace/tree")

    second = (Target(figure=Figure.MEDIAN, at_most=100),)
    what = f"{_SMALL_FILES} small files in and out as one stream"
    packed = _timed(bench, what, both_ways, samples=_LARGE_SAMPLES, size=0, targets=second)
    return [listed, *memory.results(f"{_ENTRIES} entries are listed"), packed]


class _Peaks:
    """How much more memory the server and the sandbox hold at their peak, in MB (VmHWM in proc_pid_status(5))."""

    def __init__(self, server: Server) -> None:
        sandboxes = trees(process.pid for process in recorded(server.data_dir).values())
        self._sandbox = {process for tree in sandboxes.values() for process in tree}
        self._serving = trees([server.pid])[server.pid] - self._sandbox
        self._growth: dict[str, list[float]] = {"server and host daemon": [], "sandbox": []}

    def around(self, call: Callable[[], int]) -> Callable[[], int]:
        """`call`, with a measurement around it."""

        def measured() -> int:
            before = [_reset(self._serving), _reset(self._sandbox)]
            size = call()
            after = [_status(self._serving, "VmHWM"), _status(self._sandbox, "VmHWM")]
            for samples, start, peak in zip(self._growth.values(), before, after, strict=True):
                samples.append((peak - start) / _MB)
            return size

        return measured

    def results(self, meanwhile: str) -> list[Result]:
        """A row for each of both."""
        return [
            Result(
                what=f"growth of {what} while {meanwhile}",
                unit=Unit.MEGABYTES,
                samples=Distribution.of(samples),
                targets=_LEAN,
            )
            for what, samples in self._growth.items()
        ]


def _reset(processes: set[Process]) -> int:
    """Forget the peaks of `processes` (clear_refs in proc(5)); bytes that are resident now."""
    for process in processes:
        with open(f"/proc/{process.pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    return _status(processes, "VmRSS")


def _status(processes: set[Process], field: str) -> int:
    total = 0
    for process in processes:
        with open(f"/proc/{process.pid}/status", encoding="utf-8", errors="replace") as lines:
            total += next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
    return total


def _timed(
    bench: Bench,
    what: str,
    call: Callable[[], int],
    *,
    samples: int,
    size: int,
    targets: tuple[Target, ...] = (),
) -> Result:
    """`size` is in MB; the note says how many of them a second."""
    call()
    series = Interleaved(bench.yardstick)
    for number in bench.rounds(what, samples):
        if number % _BETWEEN_COMPARISONS == 0:
            series.compare()
        started = time.perf_counter()
        call()
        series.add(what, 1000 * (time.perf_counter() - started))
    found = series.samples(what)
    note = f"{1000 * size / found.median:.0f} MB/s" if size else ""
    return Result(what=what, samples=found, yardstick=series.bare, targets=targets, note=note)


def _json(value: dict[str, Any]) -> _Content:
    data = json.dumps(value).encode()
    return _Content("application/json", len(data), lambda: iter((data,)))


def _form(size: int) -> _Content:
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="path"\r\n\r\n{_PATH}\r\n'
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n\r\n'
    ).encode()
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    data = os.urandom(_MB)

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(size // _MB):
            yield data
        yield tail

    return _Content(f"multipart/form-data; boundary={_BOUNDARY}", len(head) + size + len(tail), pieces)


def _archive() -> _Content:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for number in range(_SMALL_FILES):
            content = f"print({number})\n".encode()
            info = tarfile.TarInfo(f"package{number % 20}/module{number}.py")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    packed = data.getvalue()
    return _Content("application/x-tar", len(packed), lambda: iter((packed,)))
