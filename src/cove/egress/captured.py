"""What one sandbox sends: its captured sockets, opened and closed with its policy."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from cove.egress import datagrams
from cove.egress.answering import Answerer
from cove.egress.bandwidth import Bandwidth
from cove.egress.carrying import Pipes
from cove.egress.connections import Connection
from cove.egress.journal import Journal
from cove.egress.names_seen import NamesSeen
from cove.egress.policy import Policy
from cove.egress.resolving import Upstream
from cove.egress.secrets import Secrets
from cove.egress.termination import SandboxTermination, Termination
from cove.linux.redirection import DNS_PORT, close_datagrams, close_streams, open_datagrams, open_streams
from cove.models.network import EgressEntry, EgressTotals, EnforcedPolicy, NetworkReport
from cove.models.secrets import EgressSecret

MAX_CONNECTIONS: Final = 512
"""Of one sandbox at the same time; more wait, at most as many as the kernel lets wait."""
MAX_LOOKUPS: Final = 64
_DATAGRAM_BYTES: Final = 1232
"""The size that every path carries in one piece (dnsflagday.net/2020)."""
_TCP_DNS_SECONDS: Final = 30.0
_ACCEPTED_AT_ONCE: Final = 32
_PAUSE_SECONDS: Final = 0.5
_log = structlog.get_logger(__name__)


class CapturedSandbox:
    """Serves one sandbox; its sockets belong to it."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        upstream: Upstream,
        pipes: Pipes,
        termination: Termination,
        *,
        note: Callable[[EgressEntry], None] | None = None,
    ) -> None:
        """`note` is told of everything that it did."""
        self._loop = asyncio.get_running_loop()
        for sock in sockets:
            sock.setblocking(False)
        self._streams = [sock for sock in sockets if sock.type == socket.SOCK_STREAM]
        self._datagrams = [sock for sock in sockets if sock.type == socket.SOCK_DGRAM]
        self._upstream = upstream
        self._pipes = pipes
        self._bandwidth = Bandwidth()
        self._termination = SandboxTermination(termination)
        self._names = NamesSeen()
        self._journal = Journal(note=note)
        self._answerer = Answerer(upstream, self._names, self._journal)
        self._asked_for = EnforcedPolicy()
        self._policy = Policy.of(self._asked_for)
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._lookups: set[asyncio.Task[None]] = set()
        self._waiting = False
        self._ended = False

    def apply(self, policy: EnforcedPolicy) -> None:
        """Put `policy` in force, now; connections that it does not allow are cut."""
        self._asked_for, self._policy = policy, Policy.of(policy)
        self._bandwidth.limit(policy.network_mbps)
        for task, connection in list(self._connections.items()):
            connection.policy = self._policy
            if not connection.is_still_allowed():
                task.cancel()
        if policy.is_closed:
            self._close_sockets()
        else:
            self._open_sockets()

    def use(self, secrets: Sequence[EgressSecret]) -> None:
        """Put these secrets into requests, from the next one on, and no others."""
        self._termination.secrets = self._answerer.secrets = Secrets.of(secrets)

    def report(self, *, after: int) -> NetworkReport:
        """What it did."""
        return self._journal.report(after=after).model_copy(update={"policy": self._asked_for})

    def totals(self) -> EgressTotals:
        """What it did, in sums."""
        return self._journal.totals()

    async def end(self) -> None:
        """Cut everything and give the sockets up."""
        self._ended = True
        self._close_sockets()
        tasks = [*self._connections, *self._lookups]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in (*self._streams, *self._datagrams):
            sock.close()

    def _open_sockets(self) -> None:
        for listener in self._streams:
            open_streams(listener)
            self._loop.add_reader(listener.fileno(), self._accept, listener)
        for receiver in self._datagrams:
            open_datagrams(receiver)
            self._loop.add_reader(receiver.fileno(), self._receive, receiver)
        self._waiting = False

    def _close_sockets(self) -> None:
        for listener in self._streams:
            self._loop.remove_reader(listener.fileno())
            close_streams(listener)
        for receiver in self._datagrams:
            self._loop.remove_reader(receiver.fileno())
            with contextlib.suppress(OSError):
                close_datagrams(receiver)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if len(self._connections) >= MAX_CONNECTIONS:
                self._loop.remove_reader(listener.fileno())
                self._waiting = True
                return
            try:
                inside, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as problem:
                # Out of descriptors, or of memory: what waits goes on waiting, and this program does not spin.
                _log.warning("accept_failed", problem=str(problem))
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(_PAUSE_SECONDS, self._accept_again)
                return
            inside.setblocking(False)
            # Small pieces of an answer would wait for each other: 40 ms, measured (tcp(7)).
            inside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(inside)

    def _serve(self, inside: socket.socket) -> None:
        connection = Connection(
            inside=inside,
            policy=self._policy,
            upstream=self._upstream,
            names=self._names,
            journal=self._journal,
            pipes=self._pipes,
            bandwidth=self._bandwidth,
            termination=self._termination,
        )
        is_dns = inside.getsockname()[1] == DNS_PORT
        task = asyncio.create_task(self._answer_stream(inside) if is_dns else connection.handle())
        self._connections[task] = connection
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        connection = self._connections.pop(task)
        connection.inside.close()
        if not task.cancelled() and (problem := task.exception()) is not None:
            _log.error("connection_failed", exc_info=problem)
        if self._waiting:
            self._waiting = False
            self._accept_again()

    def _accept_again(self) -> None:
        if not self._asked_for.is_closed and not self._ended:
            for listener in self._streams:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _receive(self, receiver: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                asked = datagrams.receive(receiver)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an asker was gone before its answer: told here
                continue
            if asked is not None and len(self._lookups) < MAX_LOOKUPS:
                task = asyncio.create_task(self._answer(receiver, asked))
                self._lookups.add(task)
                task.add_done_callback(self._lookups.discard)

    async def _answer(self, receiver: socket.socket, asked: datagrams.Datagram) -> None:
        response = await self._answerer.answer(asked.data, self._policy, size=_DATAGRAM_BYTES)
        if response is not None:
            with contextlib.suppress(OSError):
                datagrams.answer(receiver, asked, response)

    async def _answer_stream(self, inside: socket.socket) -> None:
        """DNS over TCP: each message with its length before it (RFC 7766)."""
        with contextlib.suppress(OSError, TimeoutError, EOFError):
            while True:
                async with asyncio.timeout(_TCP_DNS_SECONDS):
                    question = await self._exactly(inside, int.from_bytes(await self._exactly(inside, 2)))
                    response = await self._answerer.answer(question, self._policy, size=None)
                    if response is None:
                        return
                    await self._loop.sock_sendall(inside, len(response).to_bytes(2) + response)

    async def _exactly(self, inside: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = await self._loop.sock_recv(inside, count - len(data))
            if not more:
                raise EOFError
            data += more
        return data
