"""Sending one webhook: a POST over HTTP/1.1 (RFC 9112) of which only the answer's status is of interest.

A client of its own, because of what it does not do: it follows no redirect, keeps no cookie and no connection, reads
no proxy from the environment, unpacks nothing, and connects to no address but those that were checked.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from contextlib import suppress

from cove.core.webhook_targets import Target, WebhookTargets, parse
from cove.core.webhooks import WebhookMessage, WebhookOutcome
from cove.models.addresses import IpAddress
from cove.models.errors import CoveError

_MAX_HEAD_BYTES = 16 * 1024
_MAX_BODY_BYTES = 64 * 1024
_MAX_ADDRESSES = 4
_MAX_INTERIM = 5
_INTERIM = frozenset({100, 102, 103})
_BODY_SECONDS = 1.0
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")


def trusted_certificates() -> ssl.SSLContext:
    """The system's certificate authorities, or those of `SSL_CERT_FILE` (SSL_CTX_set_default_verify_paths(3))."""
    return ssl.create_default_context()


class HttpWebhookSender:
    """Implements the core's `WebhookSender`."""

    def __init__(
        self,
        targets: WebhookTargets,
        *,
        seconds: float = 10.0,
        tls: Callable[[], ssl.SSLContext] = trusted_certificates,
    ) -> None:
        """`seconds` bounds one attempt; `tls` is called once, when the first https URL is used."""
        self._targets = targets
        self._seconds = seconds
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None

    async def send(self, message: WebhookMessage) -> WebhookOutcome:
        """Try once, bounded in time; every failure is an outcome."""
        try:
            async with asyncio.timeout(self._seconds):
                status = await self._exchange(message)
        except TimeoutError:
            return WebhookOutcome(None, f"There was no answer within {self._seconds:g} s.")
        except CoveError as refusal:
            return WebhookOutcome(None, refusal.message)
        except ssl.SSLCertVerificationError as failure:
            return WebhookOutcome(None, f"The certificate is not valid: {failure.verify_message.rstrip('.')}.")
        except (OSError, EOFError, asyncio.LimitOverrunError) as failure:
            return WebhookOutcome(None, f"The connection failed: {_reason(failure)}.")
        return WebhookOutcome(status, _failure(status))

    async def _exchange(self, message: WebhookMessage) -> int:
        target = parse(message.url)
        addresses = await self._targets.locate(target, owner=message.owner)
        reader, writer = await self._connect(target, addresses)
        try:
            writer.write(_request(target, message))
            await writer.drain()
            return await _status_of(reader)
        finally:
            writer.transport.abort()

    async def _connect(
        self, target: Target, addresses: tuple[IpAddress, ...]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The first of the addresses that answers. They are numbers: nothing is looked up again."""
        tls = self._tls_context() if target.scheme == "https" else None
        tried = addresses[:_MAX_ADDRESSES]
        problem: OSError = OSError("no address")
        for address in tried:
            try:
                async with asyncio.timeout(self._seconds / len(tried)):
                    return await asyncio.open_connection(
                        str(address),
                        target.port,
                        limit=_MAX_HEAD_BYTES,
                        ssl=tls,
                        server_hostname=target.host if tls else None,
                    )
            except OSError as failure:  # TimeoutError is one
                problem = failure
        raise problem

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls


def _request(target: Target, message: WebhookMessage) -> bytes:
    lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.authority}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in message.headers.items()]
    lines += [f"Content-Length: {len(message.body)}", "", ""]
    return "\r\n".join(lines).encode("ascii") + message.body


async def _status_of(reader: asyncio.StreamReader) -> int:
    """The final status; then a little of the body, so that the receiver is not cut off while it answers."""
    for _ in range(_MAX_INTERIM):
        line = _STATUS_LINE.match(await reader.readuntil(b"\r\n\r\n"))
        if line is None:
            raise ConnectionError("the answer is not HTTP")
        status = int(line.group(1))
        if status not in _INTERIM:
            await _discard(reader)
            return status
    raise ConnectionError("too many interim answers")


async def _discard(reader: asyncio.StreamReader) -> None:
    left = _MAX_BODY_BYTES
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(_BODY_SECONDS):
            while left > 0 and (piece := await reader.read(left)):
                left -= len(piece)


def _failure(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"The receiver answered {status}; redirects are not followed."
    return f"The receiver answered {status}."


def _reason(failure: Exception) -> str:
    if isinstance(failure, OSError) and failure.strerror:
        return failure.strerror
    if isinstance(failure, EOFError):
        return "it was closed before an answer came"
    if isinstance(failure, asyncio.LimitOverrunError):
        return "the answer's head is too long"
    return str(failure)[:200] or type(failure).__name__
