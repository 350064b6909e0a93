"""Taking values out of what a host answers, whatever pieces it comes in.

A value is masked, not cut out: every length that was announced stays true. Only a piece's end that could be the
beginning of a value waits for what follows, so that streams flow.
"""

import base64
import html
import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = b"*"
_SHORTEST: Final = 8
"""Of a form of a value; the inner part of one in Base64 can be shorter, and would be found everywhere."""


def forms(value: str) -> frozenset[bytes]:
    """The ways in which servers tell a value back: as it is, in a URL, in JSON (also in JSON that is a string in JSON),
    in HTML, and inside of Base64.
    """
    written = json.dumps(value)[1:-1]
    texts = {
        *(value, html.escape(value), html.escape(value, quote=False)),
        *(written, written.replace("/", "\\/"), _unicode_escaped(written), json.dumps(written)[1:-1]),
        *(_lower_escapes(one) for one in (quote(value), quote(value, safe=""), quote_plus(value))),
        *(quote(value), quote(value, safe=""), quote_plus(value)),
    }
    found = {text.encode("ascii") for text in texts}
    for before in range(3):
        inner = _inner_base64(value.encode("ascii"), before)
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return frozenset(one for one in found if len(one) >= _SHORTEST)


class Scrubber:
    """Masks every occurrence of `needles` in a stream of bytes."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._needles = tuple(needles)
        self._held = b""
        self._masked = 0
        """So many of the held bytes belong to an occurrence that began before them."""

    def feed(self, data: bytes) -> bytes:
        """What may be passed on by now."""
        if not self._needles or not data:
            return data
        data = self._held + data
        keep = undecided(data, self._needles)
        scrubbed, masked = self._scrub(data, keep)
        self._held, self._masked = data[keep:], max(0, masked - keep)
        return scrubbed[:keep]

    def finish(self) -> bytes:
        """The rest: nothing follows."""
        scrubbed, _ = self._scrub(self._held, 0)
        self._held, self._masked = b"", 0
        return scrubbed

    def _scrub(self, data: bytes, keep: int) -> tuple[bytes, int]:
        """With its occurrences masked, and where the last of those ends that begin before `keep`."""
        scrubbed: bytearray | None = None
        end = self._masked
        if end:
            scrubbed = bytearray(data)
            scrubbed[:end] = MASK * end
        for needle in self._needles:
            at, done = data.find(needle), 0
            while at >= 0:
                scrubbed = bytearray(data) if scrubbed is None else scrubbed
                begin, done = max(at, done), at + len(needle)
                scrubbed[begin:done] = MASK * (done - begin)
                if at < keep:
                    end = max(end, done)
                at = data.find(needle, at + 1)
        return (data if scrubbed is None else bytes(scrubbed)), end


def undecided(data: bytes, needles: Iterable[bytes]) -> int:
    """Where the longest end of `data` begins that could be the beginning of a needle."""
    first = len(data)
    for needle in needles:
        at = data.find(needle[:1], max(0, len(data) - len(needle) + 1), first)
        while at >= 0:
            if needle.startswith(data[at:]):
                first = at
                break
            at = data.find(needle[:1], at + 1, first)
    return first


def scrubbed(data: bytes, needles: Iterable[bytes]) -> bytes:
    """All of `data` at once."""
    found = [needle for needle in needles if needle in data]
    if not found:
        return data
    scrubber = Scrubber(found)
    return scrubber.feed(data) + scrubber.finish()


def _inner_base64(value: bytes, before: int) -> bytes:
    """The part of its Base64 form that does not depend on what stands around it, after `before` (modulo 3) bytes."""
    encoded = base64.b64encode(bytes(before) + value)
    whole_bits = (before + len(value)) * 8
    return encoded[(before * 8 + 5) // 6 : whole_bits // 6]


def _lower_escapes(text: str) -> str:
    """With %2f for %2F."""
    head, *rest = text.split("%")
    return "%".join([head, *(part[:2].lower() + part[2:] for part in rest)])


def _unicode_escaped(written: str) -> str:
    """As encoders write JSON that may stand in HTML."""
    for sign in "&<>'":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return written
