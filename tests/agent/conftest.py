"""The agent as a process of its own, forked from a warm one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cove.models.agent import AgentBoot

PROGRAM = """
import os, socket, sys
from cove.agent.execution.prepare import prepare
from cove.agent.main import preload, run
from cove.models.agent import AgentBoot
listener = socket.socket(fileno=int(sys.argv[1]))
before = sorted(os.listdir("/proc/self/fd"))
prepare(())
preload()
print(len(os.listdir("/proc/self/task")), sorted(os.listdir("/proc/self/fd")) == before, flush=True)
child = os.fork()
if child == 0:
    run(listener, AgentBoot.model_validate_json(sys.argv[2]))
print(child, flush=True)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class AgentProcess:
    client: httpx2.Client
    parent: subprocess.Popen[str]
    prepared: str
    pid: int
    workspace: Path
    address: str

    def execute(self, code: str, **fields: Any) -> dict[str, Any]:
        answer = self.client.post("/execute/rich", json={"code": code, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def end(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        out, _ = self.parent.communicate(timeout=20)
        return int(out)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[AgentProcess]:
    with agent_process(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """One agent for the tests of a module, which leave it running."""
    with agent_process(tmp_path_factory.mktemp("agent")) as running:
        yield running


@contextmanager
def agent_process(tmp_path: Path) -> Generator[AgentProcess]:
    """An agent that lives below `tmp_path`."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    boot = AgentBoot(
        sandbox_id="1763382095i648uu1o",
        template="base",
        isolation="none",
        workspace=str(workspace),
        base_environment=environment,
        env_vars={"GLOBAL": "1"},
    )
    address = f"\0cove-test-{os.getpid()}-{time.monotonic_ns()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(16)
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(listener.fileno()), boot.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[listener.fileno()],
        env={**os.environ, **environment},
    )
    listener.close()
    assert parent.stdout is not None
    prepared, pid = parent.stdout.readline().strip(), int(parent.stdout.readline())
    transport = httpx2.HTTPTransport(uds=address, verify=False)
    try:
        with httpx2.Client(transport=transport, base_url="http://agent", timeout=30) as client:
            yield AgentProcess(
                client=client, parent=parent, prepared=prepared, pid=pid, workspace=workspace, address=address
            )
    finally:
        if parent.poll() is None:
            os.kill(pid, signal.SIGKILL)
            parent.communicate(timeout=20)
        parent.stdout.close()
