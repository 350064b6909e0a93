"""TLS taken off where it comes from a sandbox, and put on again on the way to the host that it is for."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from cove.egress.refusals import BAD_GATEWAY, Refused
from cove.egress.secrets import NO_SECRETS, Secrets
from cove.egress.tls import TlsStream

if TYPE_CHECKING:
    from cove.egress.authority import Authority

HANDSHAKE_SECONDS: Final = 10.0
_HANDSHAKES: Final = (50.0, 64)
"""A second, and at once."""
_REQUESTS: Final = (500.0, 500)
_BODIES_AT_ONCE: Final = 8


class Pace:
    """Of one sandbox: handshakes and requests are work for all, and none may have all of it."""

    def __init__(self, per_second: float, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = 1 / per_second
        self._saved = at_once / per_second
        self._clock = clock
        self._next = 0.0

    def wait(self) -> float:
        """Take a turn; seconds until it comes."""
        now = self._clock()
        self._next = max(self._next, now - self._saved) + self._every
        return max(0.0, self._next - now)

    async def turn(self) -> None:
        """Wait for it."""
        seconds = self.wait()
        if seconds > 0:
            await asyncio.sleep(seconds)


class Termination:
    """For all sandboxes of a host."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        """
        Args:
            trusted: certificates in PEM form that vouch for hosts, beside those that this machine trusts.
        """
        self._trusted = tuple(trusted)
        self._certificate: str | None = None
        self._authority: Authority | None = None
        self._upstream: ssl.SSLContext | None = None

    async def become(self, certificate: str, key: str) -> None:
        """Sign with this authority from now on.

        Raises:
            ValueError: it cannot be used.
        """
        if certificate != self._certificate:
            self._authority, self._upstream = await asyncio.to_thread(self._prepared, certificate, key)
            self._certificate = certificate

    async def accept(self, inside: socket.socket, name: str) -> TlsStream:
        """Be the server `name` for a program that has said its first words to it.

        Raises:
            Refused: the handshake did not come about.
        """
        if self._authority is None:
            raise Refused("this host has no authority to speak for others yet")
        stream = TlsStream(inside, await self._authority.context(name))
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await stream.shake_hands()
        except ssl.SSLError as problem:
            raise Refused(f"the program broke the TLS handshake off: {_reason(problem)}") from None
        except TimeoutError:
            raise Refused("the program did not finish the TLS handshake") from None
        return stream

    async def connect(self, outside: socket.socket, name: str) -> TlsStream:
        """Speak to a server that proves to be `name`; the socket is closed when it does not.

        Raises:
            Refused: it does not, with the reason.
        """
        with contextlib.ExitStack() as held:
            held.callback(outside.close)
            assert self._upstream
            stream = TlsStream(outside, self._upstream, server_name=name)
            try:
                async with asyncio.timeout(HANDSHAKE_SECONDS):
                    await stream.shake_hands()
            except ssl.SSLCertVerificationError as problem:
                reason = problem.verify_message.rstrip(".")
                raise Refused(f"the certificate of {name} is not trusted: {reason}", status=BAD_GATEWAY) from None
            except TimeoutError:
                raise Refused(f"{name} did not finish the TLS handshake", status=BAD_GATEWAY) from None
            except OSError as problem:
                raise Refused(f"no TLS with {name}: {_reason(problem)}", status=BAD_GATEWAY) from None
            held.pop_all()
        return stream

    def _prepared(self, certificate: str, key: str) -> "tuple[Authority, ssl.SSLContext]":
        # Here, and in a thread, because both take 100 ms together; without secrets nobody needs them.
        from cove.egress.authority import Authority

        return Authority(certificate, key), self._upstream or self._verifying()

    def _verifying(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        for certificates in self._trusted:
            context.load_verify_locations(cadata=certificates)
        return context


class SandboxTermination:
    """For one sandbox.

    Attributes:
        secrets: as they are now.
        buffering: for bodies that are held as a whole: so many at once.
    """

    def __init__(self, termination: Termination) -> None:
        self._termination = termination
        self._handshakes = Pace(*_HANDSHAKES)
        self._requests = Pace(*_REQUESTS)
        self.secrets: Secrets = NO_SECRETS
        self.buffering = asyncio.Semaphore(_BODIES_AT_ONCE)

    async def accept(self, inside: socket.socket, name: str) -> TlsStream:
        """See `Termination`; in its turn."""
        await self._handshakes.turn()
        return await self._termination.accept(inside, name)

    async def request(self) -> None:
        """Return when a request may be looked at."""
        if self.secrets:
            await self._requests.turn()

    async def connect(self, outside: socket.socket, name: str) -> TlsStream:
        """See `Termination`."""
        return await self._termination.connect(outside, name)


def _reason(problem: OSError) -> str:
    if isinstance(problem, ssl.SSLError) and problem.reason:
        return problem.reason.lower().replace("_", " ")
    return problem.strerror or "the connection broke"
