"""Output of programs while they run: how late the first piece comes, and many streams at once.

Programs print the monotonic clock, which a sandbox shares with the host (time_namespaces(7)); the client compares it
with its own when the text arrives.
"""

import asyncio
import contextlib
import http.client
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

from benchmarks.bench import Bench, Interleaved
from benchmarks.clients import TEMPLATE, SdkClient
from benchmarks.outcome import Result, Target, Unit
from benchmarks.process_tree import proportional_bytes, recorded, trees
from benchmarks.samples import Distribution, Figure
from benchmarks.serving import Server
from benchmarks.yardstick import BrokenProgramError
from cove import AsyncSandbox, Sandbox

_SAMPLES: Final = 100
_SANDBOXES: Final = 50
_ROUNDS: Final = 3
_NUMBERS: Final = 2000
_SECONDS: Final = 60.0
_LIMIT_SECONDS: Final = 180.0
_MEMORY_SECONDS: Final = 0.25
_MB: Final = 1e6
_LATEST_MS: Final = 10
_TARGETS: Final = tuple(
    Target(figure=figure, at_most=_LATEST_MS, relative=False) for figure in (Figure.MEDIAN, Figure.P95)
)
# It goes on for a while, so that the end of the program hurries nothing along.
_CLOCK: Final = "import time\nprint(time.monotonic_ns(), flush=True)\ntime.sleep(0.05)"
_COUNT: Final = (
    f"import time\nfor number in range({_NUMBERS}):\n"
    "    print(number, flush=True)\n"
    "    if number % 10 == 0: time.sleep(0.002)\n"
)
_EXPECTED: Final = "".join(f"{number}\n" for number in range(_NUMBERS))

_First = Callable[[Sandbox], float]
_Stream = Callable[[AsyncSandbox], Coroutine[Any, Any, str]]


def measure(bench: Bench) -> list[Result]:
    """Both ways of streaming: lines of JSON over HTTP, and frames of a WebSocket."""
    with bench.serving(pool_size=0) as server:
        return [*_first_pieces(bench, server), *_many(bench, server)]


def _first_pieces(bench: Bench, server: Server) -> list[Result]:
    ways: dict[str, _First] = {"POST /execute/events": _first_event, "WebSocket /execute/stream": _first_frame}
    series = Interleaved(bench.yardstick)
    with SdkClient(server.url).create().sandbox as sandbox:
        for first in ways.values():
            first(sandbox)
        for _ in bench.rounds("first piece of a stream", _SAMPLES):
            series.compare()
            for name, first in ways.items():
                series.add(name, first(sandbox))
    return [
        Result(
            what=f"from print to the client's hands, first piece of {name}",
            samples=series.samples(name),
            yardstick=series.bare,
            targets=_TARGETS,
        )
        for name in ways
    ]


def _first_event(sandbox: Sandbox) -> float:
    """Milliseconds."""
    address = urlsplit(sandbox.agent_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_SECONDS)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json", **_credential(sandbox.get_token())}
        body = json.dumps({"code": _CLOCK, "language": "python"})
        connection.request("POST", f"{address.path}/execute/events", body, headers)
        response = connection.getresponse()
        return _age(json.loads(response.readline()))


def _first_frame(sandbox: Sandbox) -> float:
    """Milliseconds."""
    url, headers = _socket_url(sandbox.agent_url), _credential(sandbox.get_token())
    with connect(url, additional_headers=headers, compression=None, proxy=None) as socket:
        socket.send(json.dumps({"type": "execute", "code": _CLOCK, "language": "python"}))
        return _age(json.loads(socket.recv(timeout=_SECONDS)))


def _age(event: dict[str, Any]) -> float:
    now = time.monotonic_ns()
    if event.get("type") != "stdout":
        raise BrokenProgramError(f"expected the first piece of a stream, got {str(event)[:200]}")
    return (now - int(event["data"])) / 1e6


def _many(bench: Bench, server: Server) -> list[Result]:
    size = bench.count(_SANDBOXES)
    ways: dict[str, _Stream] = {"POST /execute/events": _numbers_by_events, "WebSocket": _numbers_by_frames}
    return asyncio.run(_many_at_once(bench, server, size, ways))


async def _many_at_once(bench: Bench, server: Server, size: int, ways: dict[str, _Stream]) -> list[Result]:
    walls: dict[str, list[float]] = {name: [] for name in ways}
    growths: list[float] = []
    async with asyncio.timeout(_LIMIT_SECONDS):
        sandboxes = await asyncio.gather(*(AsyncSandbox.create(TEMPLATE, base_url=server.url) for _ in range(size)))
        try:
            for stream in ways.values():
                await _round(sandboxes, stream)
            for _ in bench.rounds(f"{size} streams at once", _ROUNDS):
                for name, stream in ways.items():
                    before = _memory(server)
                    wall, most = await _watched(server, _round(sandboxes, stream))
                    walls[name].append(wall)
                    growths.append(max(0.0, most - before))
        finally:
            await asyncio.gather(*(sandbox.kill() for sandbox in sandboxes))
    return [
        *(
            Result(
                what=f"{size} sandboxes stream {_NUMBERS} numbers each at once, {name}, wall",
                samples=Distribution.of(samples),
                note="every stream complete and in order",
            )
            for name, samples in walls.items()
        ),
        Result(
            what=f"growth of server and host daemon while {size} streams run, highest of each round",
            unit=Unit.MEGABYTES,
            samples=Distribution.of(growths),
        ),
    ]


async def _watched(server: Server, work: Coroutine[Any, Any, float]) -> tuple[float, float]:
    """Milliseconds that `work` took, and the most memory (MB) that was seen meanwhile."""
    started = time.perf_counter()
    task = asyncio.ensure_future(work)
    most = _memory(server)
    while not task.done():
        await asyncio.wait([task], timeout=_MEMORY_SECONDS)
        most = max(most, _memory(server))
    return await task - 1000 * started, most


async def _round(sandboxes: list[AsyncSandbox], stream: _Stream) -> float:
    """The time (ms, of the performance counter) at which the last stream had ended."""
    async with asyncio.TaskGroup() as group:
        for sandbox in sandboxes:
            group.create_task(_checked(sandbox, stream))
    return 1000 * time.perf_counter()


async def _checked(sandbox: AsyncSandbox, stream: _Stream) -> None:
    got = await stream(sandbox)
    if got != _EXPECTED:
        lines = got.splitlines()
        raise BrokenProgramError(f"a stream brought {len(lines)} of {_NUMBERS} lines, or not in their order")


async def _numbers_by_events(sandbox: AsyncSandbox) -> str:
    return "".join([event.data async for event in sandbox.run_code_stream(_COUNT) if event.type == "stdout"])


async def _numbers_by_frames(sandbox: AsyncSandbox) -> str:
    pieces: list[str] = []
    url, headers = _socket_url(sandbox.agent_url), _credential(await sandbox.get_token())
    async with connect_async(url, additional_headers=headers, compression=None, proxy=None) as socket:
        await socket.send(json.dumps({"type": "execute", "code": _COUNT, "language": "python"}))
        async for message in socket:
            frame = json.loads(message)
            if frame["type"] == "stdout":
                pieces.append(frame["data"])
    return "".join(pieces)


def _memory(server: Server) -> float:
    """Megabytes of the server and the host daemon, without the sandboxes."""
    found = trees([server.pid, *(process.pid for process in recorded(server.data_dir).values())])
    own = found.pop(server.pid)
    return sum(proportional_bytes(process) for process in own.difference(*found.values())) / _MB


def _socket_url(agent_url: str) -> str:
    return agent_url.replace("http", "ws", 1) + "/execute/stream"


def _credential(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
