"""The agent as a process of its own, forked from a warm one for each module."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from cove.models.agent import AgentBoot

# For every agent there is a process between it and the warm one, which says how it has ended.
PROGRAM = """
import os, socket, sys
from cove.agent.execution.prepare import prepare
from cove.agent.main import preload, run
from cove.models.agent import AgentBoot
orders = socket.socket(fileno=int(sys.argv[1]))
before = sorted(os.listdir("/proc/self/fd"))
prepare(())
preload()
print(len(os.listdir("/proc/self/task")), sorted(os.listdir("/proc/self/fd")) == before, flush=True)
running = 0
while True:
    order, (listener, report), _, _ = socket.recv_fds(orders, 65536, 2)
    running += 1
    if os.fork() == 0:
        orders.close()
        child = os.fork()
        if child == 0:
            os.close(report)
            boot = AgentBoot.model_validate_json(order)
            os.environ.update(boot.base_environment)
            run(socket.socket(fileno=listener), boot)
        os.close(listener)
        os.write(report, b"%d\\n" % child)
        os.write(report, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    os.close(listener)
    os.close(report)
    while running and os.waitpid(-1, os.WNOHANG)[0]:
        running -= 1
"""
SECONDS = 20.0


class WarmAgent(NamedTuple):
    """A process that has imported the agent; `prepared` is what it said of itself then."""

    orders: socket.socket
    prepared: str

    def fork(self, listener: socket.socket, boot: AgentBoot) -> "Child":
        """An agent that serves on `listener`."""
        reading, writing = os.pipe()
        try:
            socket.send_fds(self.orders, [boot.model_dump_json().encode()], [listener.fileno(), writing])
        finally:
            os.close(writing)
        child = Child(reading)
        child.pid = child.said()
        return child


class Child:
    """One agent's process."""

    def __init__(self, report: int) -> None:
        self._report = report
        self.pid = 0
        self.ended = False

    def said(self) -> int:
        """The next number that is reported about it."""
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._report], [], [], SECONDS)
            assert ready, "nothing is heard of the agent"
            piece = os.read(self._report, 1)
            assert piece, "the warm process has ended"
            line += piece
        return int(line)

    def end(self, number: int) -> int:
        """Send it a signal and wait for its exit code."""
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self.pid, number)
        code = self.said()
        self.ended = True
        return code

    def close(self) -> None:
        """It is no more after this."""
        try:
            if self.pid and not self.ended:
                self.end(signal.SIGKILL)
        finally:
            os.close(self._report)


@dataclass
class AgentProcess:
    client: httpx2.Client
    child: Child
    prepared: str
    workspace: Path
    address: str

    @property
    def pid(self) -> int:
        return self.child.pid

    def execute(self, code: str, **fields: Any) -> dict[str, Any]:
        answer = self.client.post("/execute/rich", json={"code": code, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def end(self) -> int:
        return self.child.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def warm_agent() -> Iterator[WarmAgent]:
    """Not for longer: tests of executors end every process below pytest."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            parent = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno())],
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[theirs.fileno()],
            )
        try:
            assert parent.stdout is not None
            yield WarmAgent(ours, parent.stdout.readline().strip())
        finally:
            parent.kill()
            parent.communicate(timeout=SECONDS)


@pytest.fixture
def process(warm_agent: WarmAgent, tmp_path: Path) -> Iterator[AgentProcess]:
    with agent_process(warm_agent, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared_process(warm_agent: WarmAgent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """One agent for the tests of a module, which leave it running."""
    with agent_process(warm_agent, tmp_path_factory.mktemp("agent")) as running:
        yield running


@contextmanager
def agent_process(warm: WarmAgent, tmp_path: Path) -> Generator[AgentProcess]:
    """An agent that lives below `tmp_path`."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    boot = AgentBoot(
        sandbox_id="1763382095i648uu1o",
        template="base",
        isolation="none",
        workspace=str(workspace),
        base_environment={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        env_vars={"GLOBAL": "1"},
    )
    address = f"\0cove-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(16)
        child = warm.fork(listener, boot)
    transport = httpx2.HTTPTransport(uds=address, verify=False)
    try:
        with httpx2.Client(transport=transport, base_url="http://agent", timeout=30) as client:
            yield AgentProcess(client=client, child=child, prepared=warm.prepared, workspace=workspace, address=address)
    finally:
        child.close()
