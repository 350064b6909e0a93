"""A driver that isolates nothing: for unit tests of what is above drivers.

Its sandboxes are entries in memory, each with a real unix socket on which a tiny agent answers `GET /health`,
`GET /env` and `PATCH /env`. It can be told to fail, to hang and to lose sandboxes.
"""

import asyncio
import json
import os
import re
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cove.models.errors import CoveError, error
from cove.models.hosts import HostState, HostUsage, SandboxRecord, SandboxSpec
from cove.models.isolation import Capabilities, DriverReport, Isolation
from cove.models.templates import TemplateManifest

_REQUEST = re.compile(rb"(GET|PATCH) (/\S*) HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


@dataclass(slots=True)
class FakeSandbox:
    """One sandbox. `env_vars` is its environment as its agent sees it, `disk` stands for its files."""

    record: SandboxRecord
    env_vars: dict[str, str]
    server: asyncio.Server | None
    disk: dict[str, str] = field(default_factory=dict[str, str])
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class FakeDriver:
    """Implements `RuntimeDriver`.

    Attributes:
        sandboxes: what exists.
        failures: raised by the next creates and starts, one each.
        gate: creates wait until it is set.
        agent_status: what the agents answer to `PATCH /env`.
        limit: what sandboxes that end by themselves ran into.
        doubts: how often it was told that a start has failed.
    """

    def __init__(self, directory: Path, *, sockets: bool = True) -> None:
        self._directory = directory
        self._sockets = sockets
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.failures: deque[CoveError] = deque()
        self._serving: set[asyncio.Task[None]] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.agent_status = 200
        self.limit = ""
        self.doubts = 0

    @property
    def isolation(self) -> Isolation:
        """None at all."""
        return Isolation.FAKE

    @property
    def capabilities(self) -> Capabilities:
        """All that takes no isolation."""
        return Capabilities(pause=True, stop_start=True, internet=True)

    async def check(self, *, fresh: bool = False) -> DriverReport:
        """Always available."""
        return DriverReport(isolation=Isolation.FAKE, available=True, summary="fake", capabilities=self.capabilities)

    def doubt(self) -> None:
        """Nothing is remembered; how often it was called is."""
        self.doubts += 1

    async def create(self, spec: SandboxSpec, template: TemplateManifest) -> SandboxRecord:
        """Make an entry, and a socket for it."""
        await self.gate.wait()
        if self.failures:
            raise self.failures.popleft()
        path = self._directory / f"{spec.sandbox_id}.sock"
        record = SandboxRecord(
            sandbox_id=spec.sandbox_id,
            template=spec.template,
            template_digest=template.digest,
            isolation=Isolation.FAKE,
            limits=spec.limits,
            state=HostState.RUNNING,
            socket_path=str(path),
            pid=os.getpid(),
            pid_started=0,
            created=time.time(),
            deadline=spec.deadline,
            pooled=spec.pooled,
        )
        sandbox = FakeSandbox(record, dict(spec.env_vars), None)
        await self._listen(sandbox)
        self.sandboxes[spec.sandbox_id] = sandbox
        try:
            if sandbox.server:
                await sandbox.server.start_serving()
        except asyncio.CancelledError:
            await self.destroy(record)
            raise
        return record

    async def stop(self, record: SandboxRecord) -> SandboxRecord:
        """Close the socket; the entry stays."""
        sandbox = self._known(record.sandbox_id)
        self._hang_up(sandbox)
        sandbox.record = record.model_copy(update={"state": HostState.STOPPED, "pid": 0, "pid_started": 0})
        return sandbox.record

    async def start(
        self, record: SandboxRecord, template: TemplateManifest, env_vars: Mapping[str, str]
    ) -> SandboxRecord:
        """A new socket for the entry."""
        await self.gate.wait()
        if self.failures:
            raise self.failures.popleft()
        sandbox = self._known(record.sandbox_id)
        await self._listen(sandbox)
        if sandbox.server:
            await sandbox.server.start_serving()
        sandbox.ended = asyncio.Event()
        sandbox.env_vars = dict(env_vars)
        sandbox.record = record.model_copy(update={"state": HostState.RUNNING, "pid": os.getpid(), "env_vars": {}})
        return sandbox.record

    async def _listen(self, sandbox: FakeSandbox) -> None:
        """Not serving yet: a create that is cancelled when it does has put the server where it is closed."""
        if self._sockets:
            sandbox.server = await asyncio.start_unix_server(
                lambda r, w: self._serve(sandbox, r, w), sandbox.record.socket_path, start_serving=False
            )

    async def destroy(self, record: SandboxRecord) -> None:
        """Remove the entry and its socket. Idempotent."""
        sandbox = self.sandboxes.pop(record.sandbox_id, None)
        if sandbox is None:
            return
        self._hang_up(sandbox)

    def _hang_up(self, sandbox: FakeSandbox) -> None:
        sandbox.ended.set()
        if sandbox.server is not None:
            sandbox.server.close()
            sandbox.server = None
            Path(sandbox.record.socket_path).unlink(missing_ok=True)

    async def pause(self, record: SandboxRecord) -> None:
        """Note that it is paused. Idempotent."""
        self._set_state(record.sandbox_id, HostState.PAUSED)

    async def resume(self, record: SandboxRecord) -> None:
        """Note that it runs. Idempotent."""
        self._set_state(record.sandbox_id, HostState.RUNNING)

    async def adopt(self, record: SandboxRecord) -> bool:
        """Whether the entry is there."""
        return record.sandbox_id in self.sandboxes

    async def wait(self, record: SandboxRecord) -> None:
        """Return when the entry is gone."""
        sandbox = self.sandboxes.get(record.sandbox_id)
        if sandbox is not None:
            await sandbox.ended.wait()

    async def limit_at_end(self, record: SandboxRecord) -> str:
        """What it was told to say."""
        return self.limit

    async def capture(self, record: SandboxRecord) -> Sequence[socket.socket]:
        """There is no network to capture."""
        raise error("UNSUPPORTED", f"Sandbox {record.sandbox_id} is not isolated at all.")

    async def usage(self, record: SandboxRecord) -> HostUsage:
        """Nothing."""
        self._known(record.sandbox_id)
        return HostUsage(memory_bytes=0, cpu_seconds=0.0, pids=1)

    async def warm(self, template: TemplateManifest) -> None:
        """There is nothing to warm."""

    async def sweep(self, known: frozenset[str]) -> None:
        """Remove entries that are not in `known`."""
        for sandbox_id in self.sandboxes.keys() - known:
            await self.destroy(self.sandboxes[sandbox_id].record)

    async def close(self) -> None:
        """Remove all entries: they do not outlive this process."""
        await self.sweep(frozenset())
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def update(self, sandbox_id: str, **changes: object) -> SandboxRecord:
        """Change facts in the record of an entry.

        Raises:
            CoveError: SANDBOX_NOT_FOUND.
        """
        sandbox = self._known(sandbox_id)
        sandbox.record = sandbox.record.model_copy(update=changes)
        return sandbox.record

    def _set_state(self, sandbox_id: str, state: HostState) -> None:
        self.update(sandbox_id, state=state)

    def _known(self, sandbox_id: str) -> FakeSandbox:
        found = self.sandboxes.get(sandbox_id)
        if found is None:
            raise error("SANDBOX_NOT_FOUND", f"Sandbox {sandbox_id} was not found on this host.")
        return found

    async def _serve(self, sandbox: FakeSandbox, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        try:
            await self._exchange(sandbox, reader, writer)
        finally:
            self._serving.discard(task)
            writer.close()

    async def _exchange(self, sandbox: FakeSandbox, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length.group(1)) if length else 0)
            request = _REQUEST.match(head)
            status = self._answer(sandbox, request.group(1) if request else b"", body)
            said = json.dumps({"env_vars": sandbox.env_vars}).encode()
            length = f"Content-Length: {len(said)}\r\nConnection: close\r\n\r\n"
            writer.write(f"HTTP/1.1 {status} Fake\r\n{length}".encode() + said)
            await writer.drain()

    def _answer(self, sandbox: FakeSandbox, method: bytes, body: bytes) -> int:
        if method == b"GET":
            return 200
        if method == b"PATCH" and self.agent_status == 200:
            sandbox.env_vars.update(json.loads(body)["env_vars"])
        return self.agent_status
