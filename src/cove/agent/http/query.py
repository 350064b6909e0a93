"""Query strings, read strictly where strictness matters: paths."""

import os
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from cove.models.errors import error

_NAMES = (b"path", b"offset", b"limit", b"skip_unreadable")


class PathArgument(NamedTuple):
    """A path from a query string.

    Attributes:
        text: decoded, with `+` read as a space, as HTML forms encode it.
        literals: what else a client that does not encode its paths may have meant: with `+` kept, and as it came.
    """

    text: str
    literals: tuple[str, ...] = ()


def path_argument(request: Request, *, default: str | None = None) -> PathArgument:
    """The `path` of the query string.

    Raises:
        CoveError: MISSING_PARAMETER, or INVALID_REQUEST when there are two.
    """
    raw = _argument(request, b"path")
    if raw is None:
        if default is None:
            raise error("MISSING_PARAMETER", "The query lacks `path`.", remedy="Send `?path=/...`.", field="path")
        return PathArgument(default)
    text = _decoded(raw.replace(b"+", b" "))
    others = (_decoded(raw), os.fsdecode(raw))
    return PathArgument(text, tuple(other for other in dict.fromkeys(others) if other != text))


def flag_argument(request: Request, name: str) -> bool:
    """Whether the query string says `name=true` (or `1`).

    Raises:
        CoveError: INVALID_REQUEST when it says something else than yes or no.
    """
    raw = _argument(request, name.encode("ascii"))
    if raw in (None, b"false", b"0"):
        return False
    if raw in (b"true", b"1"):
        return True
    raise error("INVALID_REQUEST", f"`{name}` is neither `true` nor `false`.", field=name)


def number_argument(request: Request, name: str) -> int | None:
    """A number of at least 0 from the query string, or None.

    Raises:
        CoveError: INVALID_REQUEST when it is not a plain decimal number.
    """
    raw = _argument(request, name.encode("ascii"))
    if raw is None:
        return None
    if not raw.isdigit() or len(raw) > 18:
        raise error(
            "INVALID_REQUEST",
            f"`{name}` is not a number.",
            remedy=f"Send `{name}` as a decimal number of at least 0.",
            field=name,
        )
    return int(raw)


def _argument(request: Request, wanted: bytes) -> bytes | None:
    found: bytes | None = None
    current = b""
    for part in request.scope["query_string"].split(b"&"):
        name, separator, value = part.partition(b"=")
        if separator and name in _NAMES:
            current = name
            if name != wanted:
                continue
            if found is not None:
                raise error("INVALID_REQUEST", f"`{wanted.decode()}` was sent twice.", field=wanted.decode())
            found = value
        elif current == wanted == b"path" and found is not None:
            # Clients that do not encode send the `&` of a file name as it is.
            found += b"&" + part
    return found


def _decoded(raw: bytes) -> str:
    # Names of files are bytes: those that are not UTF-8 can be reached too.
    return os.fsdecode(unquote_to_bytes(raw))
