"""One connection of a sandbox: who wants to go where, whether he may, and carrying it."""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from cove.egress.bandwidth import Bandwidth
from cove.egress.carrying import Pipes, carry, carry_some
from cove.egress.dialling import Unreachable, dial, on_machine
from cove.egress.first_bytes import MAX_HELLO, Http, Incomplete, Opening, Other, Tls, Unreadable, opening
from cove.egress.journal import Journal
from cove.egress.names_seen import NamesSeen
from cove.egress.policy import Policy
from cove.egress.refusals import BAD_GATEWAY, Refused
from cove.egress.resolving import LookupFailed, NoSuchName, Upstream
from cove.egress.segments import segments
from cove.egress.streams import Plain, Stream
from cove.egress.termination import SandboxTermination
from cove.egress.web_requests import Connect, Host, WebRequests
from cove.linux.readiness import readable
from cove.models.addresses import IpAddress
from cove.models.network import RefusalCause

FIRST_BYTES_SECONDS: Final = 30.0
_ACCESS_DENIED: Final = b"\x15\x03\x03\x00\x02\x02\x31"
"""A TLS alert, fatal, access_denied (RFC 8446 §6.2): clients show it."""
_KEEPALIVE_SECONDS: Final = 60
_WEB_PORTS: Final = (80, 443)
_MOST_LOOKS: Final = 64
"""At a greeting that comes in pieces: each look reads all of it again."""


@dataclass(slots=True)
class Place:
    """Where a connection goes.

    Attributes:
        address: that the program connected to.
        name: the host that it wants to reach, in one spelling; empty while it is not known.
        kind: for the journal.
    """

    address: IpAddress
    port: int
    name: str = ""
    kind: str = "tcp"


@dataclass(slots=True, kw_only=True)
class Connection:
    """Handles one accepted connection, to its end."""

    inside: socket.socket
    policy: Policy
    upstream: Upstream
    names: NamesSeen
    journal: Journal
    pipes: Pipes
    bandwidth: Bandwidth
    termination: SandboxTermination
    sent_bytes: int = 0
    received_bytes: int = 0
    _opening: Opening = field(default_factory=Other)
    _place: Place | None = None
    _is_terminated: bool = False

    def is_still_allowed(self) -> bool:
        """Whether the policy, as it is now, would let it go where it goes."""
        place = self._place
        if place is None:
            return True
        if place.name:
            return self.policy.on_name(place.name, place.port).allowed
        return self.policy.on_address(place.address, place.port).allowed

    async def handle(self) -> None:
        """Decide, connect, carry; write it down. The socket is closed afterwards."""
        place = self._place = _wanted(self.inside)
        began = time.monotonic()
        refusal: str | None = None
        cause = RefusalCause.POLICY
        self.journal.connections += 1
        self.journal.open_connections += 1
        try:
            await self._go(place)
        except Refused as problem:
            refusal, cause = str(problem), problem.cause
            self._tell()
        except asyncio.CancelledError:
            refusal, cause = "the policy was changed, or the sandbox ended", RefusalCause.CUT
            self._reset()
            raise
        except OSError as problem:
            # The connection broke; what was carried until then is known.
            refusal = None if self.sent_bytes or self.received_bytes else problem.strerror
            cause = RefusalCause.HOST
        finally:
            packets = segments(self.inside)
            self.inside.close()
            self.journal.open_connections -= 1
            self.journal.add(
                place.kind,
                str(place.address),
                port=place.port,
                name=place.name,
                refusal=refusal,
                cause=cause,
                sent_bytes=self.sent_bytes,
                received_bytes=self.received_bytes,
                packets=packets,
                seconds=time.monotonic() - began,
            )

    async def _go(self, place: Place) -> None:
        if place.address.is_loopback:
            raise Refused("it came to the capturing socket itself")
        if self._looks_at_names(place.port) and not self._is_known(place):
            if not self.policy.a_name_may_open(place.port):
                self._unnamed(place)
            self._opening = await self._first_bytes()
            if isinstance(self._opening, Http):
                place.kind = "http"
                await self._web(place)
                return
            if place.port in _WEB_PORTS and self.policy.denies_names and not _is_named(self._opening):
                raise Refused("without a host's name it cannot be told from one that is denied")
            if self.termination.secrets and isinstance(self._opening, Tls) and self._opening.name is not None:
                place.kind, place.name = "tls", self._opening.name
                await self._terminate(place)
                return
            addresses = await self._named(place) if isinstance(self._opening, Tls) else self._unnamed(place)
        else:
            addresses = self._unnamed(place) if not place.name else await self._addresses(place)
        await self._carry(place, addresses)

    def _looks_at_names(self, port: int) -> bool:
        return self.policy.looks_at_names or (bool(self.termination.secrets) and self.policy.a_name_may_open(port))

    def _is_known(self, place: Place) -> bool:
        """Whether the rule for this port names the host that our resolver led the program here for: then nothing has
        to be read first, and a protocol where the server speaks first works.
        """
        if place.port in _WEB_PORTS or self.termination.secrets.has_port(place.port):
            return False
        for name in self.names.of(place.address):
            if self.policy.on_name(name, place.port).allowed:
                place.name = name
                return True
        return self.policy.on_address(place.address, place.port).allowed

    async def _named(self, place: Place) -> tuple[IpAddress, ...]:
        assert isinstance(self._opening, Tls)
        place.kind = "tls"
        if self._opening.name is None:
            return self._unnamed(place)
        place.name = self._opening.name
        return await self._addresses(place)

    def _unnamed(self, place: Place) -> tuple[IpAddress, ...]:
        """Without a name only its address can allow it.

        Raises:
            Refused: it does not.
        """
        if isinstance(self._opening, Unreadable):
            raise Refused(self._opening.reason)
        verdict = self.policy.on_address(place.address, place.port)
        if verdict.allowed:
            verdict = on_machine(self.policy, place.address, place.port)
        if verdict.refusal is not None:
            raise Refused(verdict.refusal)
        return (place.address,)

    async def _addresses(self, place: Place) -> tuple[IpAddress, ...]:
        """Where the host that it names really is: the address that the program chose counts only if it is one of its.

        Raises:
            Refused: the host may not be reached, or is nowhere.
        """
        self.termination.secrets.forbid(place.name.encode(), "the name of a host")
        verdict = self.policy.on_name(place.name, place.port)
        if verdict.refusal is not None:
            raise Refused(verdict.refusal)
        try:
            found = await self.upstream.addresses(place.name)
        except NoSuchName:
            raise Refused(f"there is no host {place.name}", cause=RefusalCause.HOST) from None
        except LookupFailed as problem:
            raise Refused(str(problem), cause=RefusalCause.HOST) from None
        refusal: str | None = f"{place.name} has no address"
        passed: list[IpAddress] = []
        for address in found:
            verdict = self.policy.on_answer(place.name, address, place.port)
            if verdict.allowed:
                verdict = on_machine(self.policy, address, place.port)
            if verdict.allowed:
                passed.append(address)
            refusal = verdict.refusal or refusal
        if not passed:
            raise Refused(refusal or "")
        passed.sort(key=lambda address: address != place.address)
        return tuple(passed)

    async def _web(self, place: Place) -> None:
        """Plain HTTP: each request names its host, and each is looked at."""

        async def connect(host: Host) -> Stream:
            if isinstance(host, str):
                place.name = host
                return Plain(await self._dial(place, await self._addresses(place)))
            if host != place.address:
                raise Refused("it names another address than it is connected to")
            place.name = ""
            return Plain(await self._dial(place, self._unnamed(place)))

        await self._requests(place, Plain(self.inside), connect, is_tls=False)

    async def _terminate(self, place: Place) -> None:
        """TLS of a sandbox with secrets: requests are read, and go on to the host that the connection is for."""
        await self._addresses(place)
        self._is_terminated = True
        inside = await self.termination.accept(self.inside, place.name)

        async def connect(host: Host) -> Stream:
            if host != place.name:
                raise Refused(f"it names another host than its connection, which is to {place.name}")
            outside = await self._dial(place, await self._addresses(place))
            return await self.termination.connect(outside, place.name)

        try:
            await self._requests(place, inside, connect, is_tls=True)
        except ssl.SSLError as problem:
            raise Refused(f"the program broke TLS off: {problem.reason}", cause=RefusalCause.REQUEST) from None
        finally:
            inside.close()

    async def _requests(self, place: Place, inside: Stream, connect: Connect, *, is_tls: bool) -> None:
        _keep_alive(self.inside)

        async def sent(count: int) -> None:
            self._sent(count)
            await self.bandwidth.sent.pace(count)

        async def received(count: int) -> None:
            self._received(count)
            await self.bandwidth.received.pace(count)

        requests = WebRequests(
            inside,
            port=place.port,
            is_tls=is_tls,
            termination=self.termination,
            connect=connect,
            sent=sent,
            received=received,
            carry=None if is_tls else self._carry_answer,
        )
        await requests.serve()

    async def _carry_answer(self, outside: Stream, count: int) -> int:
        assert isinstance(outside, Plain)
        budget = self.bandwidth.received
        return await carry_some(outside.sock, self.inside, self.pipes, most=count, budget=budget, count=self._received)

    async def _carry(self, place: Place, addresses: tuple[IpAddress, ...]) -> None:
        with await self._dial(place, addresses) as outside:
            for sock in (self.inside, outside):
                _keep_alive(sock)
            await carry(
                *(self.inside, outside, self.pipes),
                bandwidth=self.bandwidth,
                sent=self._sent,
                received=self._received,
            )

    async def _dial(self, place: Place, addresses: tuple[IpAddress, ...]) -> socket.socket:
        try:
            return await dial(addresses, place.port)
        except Unreachable as problem:
            raise Refused(str(problem), status=BAD_GATEWAY) from None

    async def _first_bytes(self) -> Opening:
        """What the program says first; nothing is taken.

        Raises:
            Refused: it says nothing for too long, or ends.
        """
        seen = 0
        try:
            async with asyncio.timeout(FIRST_BYTES_SECONDS):
                for _ in range(_MOST_LOOKS):
                    # Readable only when there is more than was looked at: looking takes nothing away.
                    self.inside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
                    await readable(self.inside.fileno())
                    data = self.inside.recv(MAX_HELLO, socket.MSG_PEEK)
                    found = opening(data)
                    if not isinstance(found, Incomplete):
                        self.inside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                        return found
                    if len(data) <= seen:
                        raise Refused("it ended before it said where it goes")
                    seen = len(data)
                raise Refused("its greeting comes in too many pieces")
        except TimeoutError:
            raise Refused(f"it said nothing in {FIRST_BYTES_SECONDS:.0f} s: only a host's name opens the way") from None

    def _sent(self, count: int) -> None:
        self.sent_bytes += count
        self.journal.sent_bytes += count

    def _received(self, count: int) -> None:
        self.received_bytes += count
        self.journal.received_bytes += count

    def _tell(self) -> None:
        """Let the program see at once that it was refused: an alert to TLS, a reset to everything else."""
        with contextlib.suppress(OSError):
            if self._is_terminated:
                return
            if isinstance(self._opening, Tls | Unreadable):
                self.inside.send(_ACCESS_DENIED, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            elif not isinstance(self._opening, Http):
                self._reset()

    def _reset(self) -> None:
        with contextlib.suppress(OSError):
            self.inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _is_named(opening: Opening) -> bool:
    return isinstance(opening, Tls) and opening.name is not None


def _wanted(inside: socket.socket) -> Place:
    """The place that the program connected to is the accepted socket's own address (see `cove.linux.redirection`)."""
    name = inside.getsockname()
    return Place(ip_address(str(name[0])), int(name[1]))


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
