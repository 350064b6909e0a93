"""One request on its way out, with secrets put in, and its answer on its way back, with them taken out."""

import base64
import binascii
from collections.abc import Iterator
from typing import Final

import h11

from cove.egress.decoding import Decoder, decoder, readable_codings
from cove.egress.refusals import Refused
from cove.egress.scrubbing import Scrubber
from cove.egress.secrets import Destination, Encode, Secrets, as_it_is, in_body, in_query
from cove.models.network import RefusalCause
from cove.models.secrets import SecretPlace

MAX_FILLED_BODY: Final = 1024 * 1024
"""Of a body whose length is announced, and changes with what is put in."""
_BASIC: Final = b"basic "
_WITHOUT_BODY: Final = (204, 304)
_UNREADABLE: Final = frozenset({b"sec-websocket-extensions"})
"""They would pack messages, in which values cannot be found then (RFC 7692)."""
_PARTIAL: Final = frozenset({b"range", b"if-range"})
"""Parts of what tells a value back are not the value. Servers may always answer with the whole (RFC 9110 §14.2)."""

Headers = list[tuple[bytes, bytes]]
Answer = h11.Response | h11.InformationalResponse


class Rewriting:
    """Of one request and its answer; without secrets nothing is changed."""

    def __init__(self, secrets: Secrets, destination: Destination) -> None:
        self._secrets = secrets
        self._destination = destination
        self._scrubber = Scrubber(secrets.needles)
        self._decoder: Decoder | None = None
        self._encode: Encode = as_it_is
        self._held = b""
        self._is_changeable = False
        self._is_head = False
        self.buffers_body = False
        """Whether the whole body is to be given to `whole_body`, and not by and by to `body`."""

    @property
    def changes_nothing(self) -> bool:
        """Whether the answer goes in as it comes, because there was no secret when it was asked for."""
        return not self._secrets

    def request(self, request: h11.Request) -> h11.Request:
        """Its head as it goes out.

        Raises:
            Refused: there is a placeholder where none may be.
        """
        self._is_head = request.method == b"HEAD"
        if not self._secrets:
            return request
        target, headers = request.target, list(request.headers)
        if self._secrets.are_in(b"\n".join((target, *_lines(headers)))) or any(map(_is_basic, headers)):
            target = self._target(target)
            headers = [(name, self._header(name, value)) for name, value in headers]
        has_value = target != request.target or headers != list(request.headers)
        unwanted = _UNREADABLE | _PARTIAL if has_value else _UNREADABLE
        headers = [_negotiated(one) for one in headers if one[0] not in unwanted]
        self._expect_body(dict(headers))
        return h11.Request(method=request.method, target=target, headers=headers, http_version=request.http_version)

    def whole_body(self, body: bytes) -> bytes:
        """As it goes out.

        Raises:
            Refused: there is a placeholder where none may be.
        """
        return self._secrets.fill(body, SecretPlace.BODY, self._destination, self._encode)

    def body(self, data: bytes) -> bytes:
        """The next piece of one that is streamed: what may go out by now.

        Raises:
            Refused: there is a placeholder where none may be.
        """
        if not self._secrets:
            return data
        filled, rest = self._secrets.filled(self._held + data, SecretPlace.BODY, self._destination, self._encode)
        if filled and not self._is_changeable:
            reason = f"a body of more than {MAX_FILLED_BODY} bytes with a secret in it has to be sent in chunks"
            raise Refused(reason, cause=RefusalCause.SECRET)
        keep = self._secrets.undecided(rest)
        self._held = rest[keep:]
        return filled + rest[:keep]

    def body_end(self) -> bytes:
        """The rest of it."""
        held, self._held = self._held, b""
        return held

    def trailers(self, headers: Headers) -> Headers:
        """Of a request.

        Raises:
            Refused: there is a placeholder where none may be.
        """
        for _, value in headers:
            self._secrets.forbid(value, "a trailer")
        return headers

    def answer(self, answer: Answer) -> Answer:
        """The head of an answer as it goes in.

        Raises:
            Refused: its body is encoded in a way that cannot be read.
        """
        if not self._secrets:
            return answer
        headers = self.answered_headers(list(answer.headers))
        if isinstance(answer, h11.Response) and not self._is_head and answer.status_code not in _WITHOUT_BODY:
            self._decoder = decoder(b",".join(value for name, value in headers if name == b"content-encoding"))
            if self._decoder:
                headers = [one for one in headers if one[0] not in (b"content-encoding", b"content-length")]
        reason = self._secrets.scrub(bytes(answer.reason))
        return type(answer)(status_code=answer.status_code, headers=headers, reason=reason)

    def answered_headers(self, headers: Headers) -> Headers:
        """Of an answer, its trailers too."""
        lines = b"\n".join(_lines(headers))
        if self._secrets.scrub(lines) is lines:
            return headers
        return [(name, self._secrets.scrub(value)) for name, value in headers]

    def answered(self, data: bytes) -> Iterator[bytes]:
        """The next piece of an answer's body.

        Raises:
            Refused: it cannot be read.
        """
        for piece in self._decoder.feed(data) if self._decoder else (data,):
            scrubbed = self._scrubber.feed(piece)
            if scrubbed:
                yield scrubbed

    def answered_end(self) -> bytes:
        """The rest of it.

        Raises:
            Refused: it cannot be read.
        """
        if self._decoder:
            self._decoder.finish()
        return self._scrubber.finish()

    def _target(self, target: bytes) -> bytes:
        path, mark, query = target.partition(b"?")
        self._secrets.forbid(path, "the path of a request")
        return path + mark + self._secrets.fill(query, SecretPlace.QUERY, self._destination, in_query)

    def _header(self, name: bytes, value: bytes) -> bytes:
        self._secrets.forbid(name, "the name of a header")
        if name in (b"host", b"content-length", b"transfer-encoding"):
            self._secrets.forbid(value, "this header")
        if _is_basic((name, value)):
            return self._basic(value)
        return self._secrets.fill(value, SecretPlace.HEADERS, self._destination, as_it_is)

    def _basic(self, value: bytes) -> bytes:
        """User and password are put together before they can be seen (RFC 7617)."""
        try:
            pair = base64.b64decode(value[len(_BASIC) :].strip(), validate=True)
        except binascii.Error:
            pair = b""
        filled = self._secrets.fill(pair, SecretPlace.HEADERS, self._destination, as_it_is)
        if filled == pair:
            return self._secrets.fill(value, SecretPlace.HEADERS, self._destination, as_it_is)
        return value[: len(_BASIC)] + base64.b64encode(filled)

    def _expect_body(self, headers: dict[bytes, bytes]) -> None:
        self._encode = in_body(headers.get(b"content-type", b""))
        length = int(headers.get(b"content-length", b"0"))
        self.buffers_body = 0 < length <= MAX_FILLED_BODY and self._secrets.may_be_in_body(self._destination)
        self._is_changeable = b"transfer-encoding" in headers


def _lines(headers: Headers) -> Iterator[bytes]:
    """What no value, and no placeholder, goes beyond the end of."""
    for name, value in headers:
        yield name
        yield value


def _is_basic(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    return name in (b"authorization", b"proxy-authorization") and value[: len(_BASIC)].lower() == _BASIC


def _negotiated(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """What packs an answer so that values cannot be found in it is not asked for."""
    name, value = header
    return (name, readable_codings(value)) if name == b"accept-encoding" else header
