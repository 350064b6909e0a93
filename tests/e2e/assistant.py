"""A client of `cove mcp` as assistants are: a process with pipes to it, and JSON-RPC on them."""

import itertools
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.e2e.running_server import (
    COVE,
    Process,
    RunningServer,
    Traces,
    clean_environment,
    lives,
    until,
)

from cove.server.local_address import LocalAddress, living_server

CALL_SECONDS = 50.0
END_SECONDS = 15.0
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


class Assistant:
    """One `cove mcp`, and the conversation with it.

    Attributes:
        started: when, on the monotonic clock.
        notifications: what came besides answers.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.started = time.monotonic()
        self.notifications: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._held = b""

    @classmethod
    def start(cls, log: Path, *options: str, **variables: str) -> Self:
        """Start it; nothing is said yet."""
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [*COVE, "mcp", *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=clean_environment(**variables),
            )
        return cls(process, log)

    def greet(self) -> dict[str, Any]:
        """Shake hands; the server's answer."""
        answer = self.request("initialize", INITIALIZE)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer["result"]

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """What a tool answers: its structured content.

        Raises:
            AssertionError: it is an error.
        """
        result = self.request("tools/call", {"name": tool, "arguments": arguments})["result"]
        assert not result.get("isError"), f"{result}\n{self.log.read_text()[-3000:]}"
        return result["structuredContent"]

    def refused(self, tool: str, **arguments: Any) -> str:
        """The text of a tool's refusal."""
        result = self.request("tools/call", {"name": tool, "arguments": arguments})["result"]
        assert result.get("isError"), result
        return result["content"][0]["text"]

    def begin(self, method: str, params: dict[str, Any]) -> int:
        """Send a request; its number."""
        number = next(self._numbers)
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        return self.answer(self.begin(method, params))

    def answer(self, number: int) -> dict[str, Any]:
        """Wait for the answer to a request; others that come before are an error."""
        while True:
            message = self.receive()
            if "method" in message:
                self.notifications.append(message)
                continue
            assert message["id"] == number, message
            return message

    def send(self, message: dict[str, Any]) -> None:
        """One line."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The next message; whatever stands on stdout has to be one."""
        assert self.process.stdout
        deadline = time.monotonic() + CALL_SECONDS
        while b"\n" not in self._held:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no answer in {CALL_SECONDS:g} s:\n{self.log.read_text()[-3000:]}"
            piece = os.read(self.process.stdout.fileno(), 65536)
            assert piece, f"it has ended:\n{self.log.read_text()[-3000:]}"
            self._held += piece
        line, _, self._held = self._held.partition(b"\n")
        return json.loads(line)

    def leave(self) -> int:
        """Close its stdin, as clients do at their end; its exit code."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(END_SECONDS)

    def end(self, number: int) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS)

    def close(self) -> None:
        """However far it is."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END_SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()


class Assistants:
    """Those of one data directory, and the server that they share."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._all: list[Assistant] = []

    def start(self, *options: str, **variables: str) -> Assistant:
        """Another one, not greeted yet."""
        log = self.data_dir / f"assistant-{len(self._all)}.log"
        assistant = Assistant.start(log, "--data-dir", str(self.data_dir), *options, COVE_POOL_SIZE="1", **variables)
        self._all.append(assistant)
        return assistant

    def greeted(self, *options: str, **variables: str) -> Assistant:
        """Another one that has shaken hands."""
        assistant = self.start(*options, **variables)
        assistant.greet()
        return assistant

    def server(self) -> LocalAddress:
        """The server that runs now."""
        address = until(lambda: living_server(self.data_dir), seconds=CALL_SECONDS, what="a local server")
        assert address
        return address

    def server_process(self) -> Process:
        """Its process."""
        address = self.server()
        return Process(address.pid, address.started)

    def starts(self) -> int:
        """How many servers were started on demand so far."""
        log = self.data_dir / "local-server.log"
        return log.read_text().count('"event": "serving_on_demand"') if log.exists() else 0

    def traces(self, sandbox_id: str) -> Traces:
        """What a running sandbox holds on the machine."""
        return RunningServer(self.data_dir, self._all[0].process, self._all[0].log).traces(sandbox_id)

    def host_daemon(self) -> Process:
        """The host daemon of the server."""
        found = RunningServer(self.data_dir, self._all[0].process, self._all[0].log).host_daemon()
        assert found
        return found

    def close(self) -> None:
        """End all, and their server, without waiting for it to find out."""
        for assistant in self._all:
            assistant.close()
        address = living_server(self.data_dir)
        if address is not None and address.on_demand:
            os.kill(address.pid, signal.SIGTERM)
            process = Process(address.pid, address.started)
            until(lambda: not lives(process), seconds=END_SECONDS, what="the local server ends")


@contextmanager
def assistants_on(data_dir: Path) -> Generator[Assistants]:
    """For one data directory; at the end all of them end."""
    assistants = Assistants(data_dir)
    try:
        yield assistants
    finally:
        assistants.close()
