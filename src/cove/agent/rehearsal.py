"""A few requests answered in the warm process, so that the first one after the fork finds everything in place."""

import asyncio
import json
import socket
from collections.abc import Mapping

from starlette.applications import Starlette
from uvicorn.config import Config

from cove.agent.app import build_app
from cove.agent.engine import Background, Counters, OutputFlow, OutputListener
from cove.agent.http.server import AgentServer
from cove.models.agent import AgentBoot
from cove.models.errors import CoveError, error
from cove.models.execution import CommandRequest, CommandResult, ExecuteRequest, ExecutionResult

TIMEOUT_SECONDS = 5.0
_REQUESTS = (
    ("GET", "/health", b""),
    ("GET", "/files/exists?path=/", b""),
    ("POST", "/execute", json.dumps({"code": "pass", "language": "python", "timeout": 1}).encode()),
    ("POST", "/commands/run", json.dumps({"command": "true", "timeout": 1}).encode()),
)


def rehearse(skeleton: Starlette, config: Config) -> None:
    """Answer some requests over a socket, on an event loop that is closed again. Runs no program."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(asyncio.wait_for(_rehearse(skeleton, config), TIMEOUT_SECONDS))
    del skeleton.state.agent


async def _rehearse(skeleton: Starlette, config: Config) -> None:
    boot = AgentBoot(sandbox_id="", template="", isolation="")
    app = build_app(boot, _Resting(), _NoVariables(), skeleton=skeleton)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # An autobound abstract address (unix(7)): nothing is left in a file system.
        listener.bind("")
        listener.listen(1)
        server = AgentServer(app, listener, config=config)
        await server.start()
        try:
            await _ask(listener.getsockname())
        finally:
            await server.close(grace=0.1)


async def _ask(address: str) -> None:
    reader, writer = await asyncio.open_unix_connection(address)
    for method, target, body in _REQUESTS:
        head = f"{method} {target} HTTP/1.1\r\nhost: agent\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode("ascii") + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(_content_length(answer))
    writer.close()
    await writer.wait_closed()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


class _Resting:
    """The engine of the warm process: it runs nothing, because what ran before the fork would be in every sandbox."""

    active = total = errors = 0
    average_ms: Mapping[str, float] = {}

    async def start(self) -> None:
        raise _refusal()

    async def execute(
        self, request: ExecuteRequest, *, on_output: OutputListener | None = None, flow: OutputFlow | None = None
    ) -> ExecutionResult:
        raise _refusal()

    async def rehearse(self) -> None:
        raise _refusal()

    async def run_command(self, request: CommandRequest, *, flow: OutputFlow | None = None) -> CommandResult:
        raise _refusal()

    async def close(self) -> None:
        return

    @property
    def background(self) -> Background:
        raise _refusal()

    @property
    def python_busy(self) -> bool:
        return False

    def counters(self) -> Counters:
        return self


class _NoVariables:
    def get(self) -> dict[str, str]:
        return {}

    def replace(self, variables: Mapping[str, str]) -> None:
        raise _refusal()

    def merge(self, variables: Mapping[str, str]) -> None:
        raise _refusal()

    def clear(self) -> None:
        raise _refusal()


def _refusal() -> CoveError:
    return error("INVALID_STATE", "The warm process runs no programs.")
