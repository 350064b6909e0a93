"""An agent on a real unix socket, with an engine that runs real programs."""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from cove.agent.app import build_app
from cove.agent.engine import Background, OutputFlow, OutputListener
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.executor import Executor
from cove.agent.http.server import AgentServer
from cove.models.agent import AgentBoot
from cove.models.errors import error
from cove.models.execution import CommandRequest, CommandResult, ExecuteRequest, ExecutionResult


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def unused_background() -> Background:
    """The real thing, which starts nothing as long as nobody asks for it."""
    return Executor(AgentBoot(sandbox_id="", template="", isolation="none"), SandboxEnvironment()).background


@dataclass
class ProgramEngine:
    """Runs `python -c` and `bash -c`; enough to see what the routes make of results."""

    active: int = 0
    total: int = 0
    errors: int = 0
    average_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    requests: list[ExecuteRequest | CommandRequest] = field(default_factory=list[ExecuteRequest | CommandRequest])
    running: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    answer: ExecutionResult | None = None
    python_busy: bool = False
    background: Background = field(default_factory=unused_background)

    async def start(self) -> None:
        return

    async def execute(
        self, request: ExecuteRequest, *, on_output: OutputListener | None = None, flow: OutputFlow | None = None
    ) -> ExecutionResult:
        self.requests.append(request)
        if self.answer is not None:
            return self.answer
        if request.code == "raise the platform":
            raise error("EXECUTION_FAILED", "The kernel cannot be started.")
        if request.code == "raise a bug":
            raise RuntimeError("secret detail")
        program = {"python": sys.executable, "bash": "bash"}[request.language]
        code, out, err = await self._run(program, "-c", request.code)
        return ExecutionResult(stdout=out, stderr=err, exit_code=code, success=code == 0, language=request.language)

    async def rehearse(self) -> None:
        return

    async def run_command(self, request: CommandRequest, *, flow: OutputFlow | None = None) -> CommandResult:
        self.requests.append(request)
        words = ["bash", "-c", request.command] if request.args is None else [request.command, *request.args]
        code, out, err = await self._run(*words)
        return CommandResult(stdout=out, stderr=err, exit_code=code, success=code == 0, command=request.command)

    async def close(self) -> None:
        return

    def counters(self) -> "ProgramEngine":
        return self

    async def _run(self, *words: str) -> tuple[int, str, str]:
        self.active += 1
        self.total += 1
        process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        self.running.set()
        try:
            out, err = await asyncio.wait_for(process.communicate(), 20)
        except BaseException:
            process.kill()
            await process.communicate()
            raise
        finally:
            self.active -= 1
            self.ended.set()
        self.errors += process.returncode != 0
        return process.returncode or 0, out.decode(), err.decode()


@dataclass
class RunningAgent:
    client: httpx2.AsyncClient
    address: str
    workspace: Path
    engine: ProgramEngine

    async def raw(self, data: bytes) -> bytes:
        """What comes back for exactly these bytes, until the agent closes or falls silent after an answer."""
        reader, writer = await asyncio.open_unix_connection(self.address)
        try:
            writer.write(data)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            length = next(
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            return head + await asyncio.wait_for(reader.readexactly(length), 10)
        finally:
            writer.close()


@pytest.fixture
async def agent(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[RunningAgent]:
    """The parameter, if there is one, is the isolation that it is told."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    boot = AgentBoot(
        sandbox_id="1763382095i648uu1o",
        template="code-interpreter",
        isolation=getattr(request, "param", "none"),
        workspace=str(workspace),
    )
    engine = ProgramEngine()
    with tempfile.TemporaryDirectory(prefix="agent-") as directory:
        address = os.path.join(directory, "agent.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(address)
        listener.listen(16)
        server = AgentServer(build_app(boot, engine, SandboxEnvironment({}, {"GIVEN": "1"})), listener)
        await server.start()
        transport = httpx2.AsyncHTTPTransport(uds=address, verify=False)
        try:
            async with httpx2.AsyncClient(transport=transport, base_url="http://agent", timeout=30) as client:
                yield RunningAgent(client=client, address=address, workspace=workspace, engine=engine)
        finally:
            await server.close(grace=5)
