"""Content codings (RFC 9110 §8.4) that are taken off an answer, so that values in it can be found."""

import zlib
from collections.abc import Iterator
from typing import Final

from cove.egress.refusals import BAD_GATEWAY, Refused

PIECE: Final = 64 * 1024
"""No more is ever unpacked at once, whatever a small answer blows up to."""
_GZIP: Final = frozenset({b"gzip", b"x-gzip"})
_READ: Final = _GZIP | {b"deflate", b"identity"}


def readable_codings(accepted: bytes) -> bytes:
    """Of a value of `Accept-Encoding`, what is read here."""
    kept = [one.strip() for one in accepted.split(b",") if one.partition(b";")[0].strip().lower() in _READ]
    return b", ".join(kept) or b"identity"


def decoder(codings: bytes) -> "Decoder | None":
    """For a value of `Content-Encoding`; None when there is nothing to decode.

    Raises:
        Refused: it cannot be read here.
    """
    named = [one for one in (part.strip().lower() for part in codings.split(b",")) if one and one != b"identity"]
    if not named:
        return None
    if len(named) == 1 and named[0] in _GZIP:
        return Decoder(gzip=True)
    if named == [b"deflate"]:
        return Decoder(gzip=False)
    shown = codings[:40].decode("ascii", "replace")
    raise Refused(f"its answer is encoded as {shown!r}, where values cannot be looked for", status=BAD_GATEWAY)


class Decoder:
    """Unpacks one answer."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._unpacking = zlib.decompressobj(31) if gzip else None
        self._is_empty = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` holds, in pieces of at most `PIECE` bytes.

        Raises:
            Refused: it cannot be unpacked.
        """
        try:
            yield from self._feed(data)
        except zlib.error:
            raise Refused("its answer cannot be unpacked", status=BAD_GATEWAY) from None

    def finish(self) -> None:
        """Nothing follows.

        Raises:
            Refused: something is missing.
        """
        if not self._is_empty and not (self._unpacking and self._unpacking.eof):
            raise Refused("its packed answer ends too early", status=BAD_GATEWAY)

    def _feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            self._is_empty = False
            if self._unpacking is None:
                self._unpacking = zlib.decompressobj(15 if _has_zlib_head(data) else -15)
            elif self._unpacking.eof:
                if not self._gzip:
                    return
                self._unpacking = zlib.decompressobj(31)  # the next member (RFC 1952 §2.2)
            piece = self._unpacking.decompress(data, PIECE)
            data = self._unpacking.unused_data if self._unpacking.eof else self._unpacking.unconsumed_tail
            if piece:
                yield piece
        while self._unpacking and not self._unpacking.eof and (piece := self._unpacking.decompress(b"", PIECE)):
            yield piece


def _has_zlib_head(data: bytes) -> bool:
    """As the standard says (RFC 1950 §2.2): some servers leave the head out."""
    return len(data) < 2 or (data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0)
