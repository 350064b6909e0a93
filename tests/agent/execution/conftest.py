"""An executor on a real event loop, with real processes; everything is ended afterwards."""

import os
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.executor import Executor
from cove.models.agent import AgentBoot
from cove.models.execution import CommandRequest, CommandResult, ExecuteRequest, ExecutionResult

# Ignores SIGTERM, leaves its session and its parent, and never ends by itself.
DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
        with open('daemon.tmp', 'w') as file: file.write(str(os.getpid()))
        os.rename('daemon.tmp', 'daemon.pid')
        while True: time.sleep(60)
    os._exit(0)
os.wait()
"""
LANGUAGES = ("python", "javascript", "bash", "go")


@dataclass
class Sandbox:
    """An executor with short ways to use it."""

    executor: Executor
    environment: SandboxEnvironment
    workspace: Path

    async def python(self, code: str, **options: Any) -> ExecutionResult:
        return await self.run("python", code, **options)

    async def javascript(self, code: str, **options: Any) -> ExecutionResult:
        return await self.run("javascript", code, **options)

    async def run(self, language: str, code: str, **options: Any) -> ExecutionResult:
        request = ExecuteRequest.model_validate({"code": code, "language": language, "timeout": 20.0} | options)
        with anyio.fail_after(request.timeout + 5):
            return await self.executor.execute(request)

    async def command(self, command: str, **options: Any) -> CommandResult:
        with anyio.fail_after(30):
            return await self.executor.run_command(CommandRequest.model_validate({"command": command} | options))

    async def started_by(self, file: str) -> int:
        """The pid that a program has written to `file`."""
        path = self.workspace / file
        await self.until(lambda: path.exists() and path.read_text().strip().isdigit())
        return int(path.read_text())

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until `condition` holds; fail after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            await anyio.sleep(0.01)

    def lives(self, pid: int) -> bool:
        """Whether the process exists and is not a zombie."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return text[text.rfind(")") + 2] not in "ZX"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncGenerator[Sandbox]:
    base = {"PATH": f"{os.environ['PATH']}:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    environment = SandboxEnvironment(base)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    boot = AgentBoot(
        sandbox_id="sb_test", template="t", isolation="none", languages=LANGUAGES, workspace=str(workspace)
    )
    executor = Executor(boot, environment)
    await executor.start()
    try:
        yield Sandbox(executor, environment, workspace)
    finally:
        with anyio.fail_after(10):
            await executor.close()
