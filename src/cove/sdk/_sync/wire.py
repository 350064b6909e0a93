# Generated from src/cove/sdk/_async/wire.py by tools/generate_sync_sdk.py. Do not edit.

"""How requests travel: one connection pool, bounded answers, errors as exceptions, and few retries."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import NoReturn

import httpx2

from cove.models.errors import CoveError, error
from cove.sdk._endpoint import USER_AGENT, Endpoint
from cove.sdk._failures import (
    MAX_ERROR_BYTES,
    failure_of_answer,
    failure_of_transport,
    nothing_was_sent,
    too_large,
    too_slow,
)
from cove.sdk._requests import Call
from cove.sdk._retry import Reach, delay_before_retry
from cove.sdk._sync.primitives import raw_pieces, transport, wait

CONNECT_SECONDS = 5.0

Headers = tuple[tuple[str, str], ...]
Body = Callable[[], Generator[bytes, None]]


class _Streamed(httpx2.SyncByteStream):
    """A body that is produced while it is sent."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        with closing(self._body()) as pieces:
            yield from pieces


class Wire:
    """Connections to one server, kept alive between requests.

    The transport is used without httpx2's client around it: there are no cookies, redirects, proxies or decoders to
    want here (a sandbox answers many of these requests), and it halves the time of a call.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        given: httpx2.BaseTransport | None = None,
        max_answer_bytes: int | None = None,
    ) -> None:
        """`max_answer_bytes` bounds every answer, beside what each call allows."""
        self.endpoint = endpoint
        self._given = given
        self._max_answer_bytes = max_answer_bytes
        self._transports: dict[bool, httpx2.BaseTransport] = {}
        self._urls: dict[str, httpx2.URL] = {}

    def another(self, *, api_key: str | None = None) -> "Wire":
        """A second pool to the same server, perhaps with another key; a transport that the caller gave is shared."""
        endpoint = self.endpoint if api_key is None else replace(self.endpoint, api_key=api_key)
        return Wire(endpoint, given=self._given, max_answer_bytes=self._max_answer_bytes)

    def origin(self, public_url: str) -> str:
        """How requests name an address that the server gave out. What goes through a unix socket is not encrypted:
        TLS, where the public address has it, is spoken by something that stands before the server's port."""
        origin = public_url.rstrip("/")
        plain = self.endpoint.socket_path is not None and origin.startswith("https:")
        return f"http:{origin.removeprefix('https:')}" if plain else origin

    @property
    def has_given_transport(self) -> bool:
        """Whether requests go through something of the caller's instead of sockets."""
        return self._given is not None

    def send(self, origin: str, call: Call, *, headers: Headers = (), body: Body | None = None) -> bytes:
        """The body of the answer to `call` below `origin`, whole.

        Raises:
            CoveError: the answer is an error, or there was none.
        """
        attempt = 1
        while True:
            try:
                with self._exchange(origin, call, headers, body) as pieces:
                    return b"".join(list(pieces))
            except _Failed as failed:
                delay = delay_before_retry(failed.failure, policy=call.retry, reach=failed.reach, attempt=attempt)
                if delay is None:
                    raise failed.failure from failed.__cause__
            wait(delay)
            attempt += 1

    @contextmanager
    def stream(self, origin: str, call: Call, *, headers: Headers = ()) -> Generator[Iterator[bytes], None]:
        """The answer in pieces, as they come. Never repeated: the caller may have used the first ones.

        Raises:
            CoveError: as for `send`; also while the pieces are read.
        """
        try:
            with self._exchange(origin, call, headers, None) as pieces:
                yield pieces
        except _Failed as failed:
            raise failed.failure from failed.__cause__

    def close(self) -> None:
        """Close the connections that this object made. A later request makes new ones."""
        transports, self._transports = self._transports, {}
        for opened in transports.values():
            opened.close()

    @contextmanager
    def _exchange(
        self, origin: str, call: Call, headers: Headers, body: Body | None
    ) -> Generator[Iterator[bytes], None]:
        deadline = time.monotonic() + call.timeout
        url = origin + call.path
        limit = call.max_answer_bytes
        if self._max_answer_bytes is not None:
            limit = min(limit, self._max_answer_bytes)
        try:
            request = self._request(url, call, headers, body)
            response = self._transport_for(url).handle_request(request)
            try:
                if response.status_code >= 300:
                    _raise_answer(response, url=url, deadline=deadline)
                with closing(_bounded(response, call, limit=limit, url=url, deadline=deadline)) as pieces:
                    yield pieces
            finally:
                response.close()
        except httpx2.InvalidURL as problem:
            raise error("INVALID_REQUEST", f"{url[:200]!r} is not a URL ({problem}).") from None
        except httpx2.TransportError as failure:
            reach = Reach.NOT_SENT if nothing_was_sent(failure) else Reach.SENT
            raise _Failed(failure_of_transport(failure, method=call.method, url=url), reach) from failure

    def _transport_for(self, url: str) -> httpx2.BaseTransport:
        if self._given is not None:
            return self._given
        secure = url.startswith("https:")
        if secure not in self._transports:
            self._transports[secure] = transport(self.endpoint, secure=secure)
        return self._transports[secure]

    def _request(self, url: str, call: Call, headers: Headers, body: Body | None) -> httpx2.Request:
        stall = min(call.stall, call.timeout)
        parsed = self._parsed(url)
        fields = [("Host", parsed.netloc.decode("ascii")), ("User-Agent", USER_AGENT), ("Accept-Encoding", "identity")]
        fields += headers
        fields += call.headers
        if body is None and (call.content is not None or call.method != "GET"):
            content = call.content or b""
            fields.append(("Content-Length", str(len(content))))
            if content:
                fields.append(("Content-Type", "application/json"))
        stream = httpx2.ByteStream(call.content or b"") if body is None else _Streamed(body)
        connect = min(CONNECT_SECONDS, call.timeout)
        timeouts = {"connect": connect, "read": stall, "write": stall, "pool": stall}
        return httpx2.Request(call.method, parsed, headers=fields, stream=stream, extensions={"timeout": timeouts})

    def _parsed(self, url: str) -> httpx2.URL:
        """Parsing takes 0.1 ms; URLs with a query are seldom used twice."""
        if "?" in url:
            return httpx2.URL(url)
        if url not in self._urls:
            if len(self._urls) >= 64:
                self._urls.clear()
            self._urls[url] = httpx2.URL(url)
        return self._urls[url]


class _Failed(Exception):
    """A failure on its way to the decision whether to try again."""

    def __init__(self, failure: CoveError, reach: Reach) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.reach = reach


def _bounded(response: httpx2.Response, call: Call, *, limit: int, url: str, deadline: float) -> Generator[bytes, None]:
    declared = response.headers.get("content-length", "")
    # The transport has checked that it is a number; one of this many digits is above every limit.
    if len(declared) > 15 or (declared.isdecimal() and int(declared) > limit):
        raise too_large(method=call.method, url=url, limit=limit)
    total = 0
    with raw_pieces(response) as pieces:
        for piece in pieces:
            total += len(piece)
            if total > limit:
                raise too_large(method=call.method, url=url, limit=limit)
            yield piece
            if time.monotonic() > deadline:
                raise too_slow(method=call.method, url=url, seconds=call.timeout)


def _raise_answer(response: httpx2.Response, *, url: str, deadline: float) -> NoReturn:
    body = bytearray()
    with raw_pieces(response) as pieces:
        for piece in pieces:
            body += piece
            if len(body) > MAX_ERROR_BYTES or time.monotonic() > deadline:
                break
    raise _Failed(failure_of_answer(response.status_code, bytes(body), url=url), Reach.ANSWERED)
