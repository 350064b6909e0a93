"""A few requests answered in the warm process, so that the first one after the fork finds everything in place."""

import asyncio
import json
import socket
from collections.abc import Mapping

from cove.agent.app import build_app
from cove.agent.engine import Counters
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


def rehearse() -> None:
    """Answer some requests over a socket pair, on an event loop that is closed again. Runs no program."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(asyncio.wait_for(_rehearse(), TIMEOUT_SECONDS))


async def _rehearse() -> None:
    boot = AgentBoot(sandbox_id="", template="", isolation="")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # An autobound abstract address (unix(7)): nothing is left in a file system.
    listener.bind("")
    listener.listen(1)
    server = AgentServer(build_app(boot, _Resting(), _NoVariables()), listener)
    await server.start()
    try:
        reader, writer = await asyncio.open_unix_connection(listener.getsockname())
        for method, target, body in _REQUESTS:
            writer.write(
                b"%s %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s"
                % (method.encode(), target.encode(), len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_content_length(head))
        writer.close()
        await writer.wait_closed()
    finally:
        await server.close(grace=0.1)


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

    async def execute(self, request: ExecuteRequest) -> ExecutionResult:
        raise _refusal()

    async def run_command(self, request: CommandRequest) -> CommandResult:
        raise _refusal()

    async def close(self) -> None:
        return

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
