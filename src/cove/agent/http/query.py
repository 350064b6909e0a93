"""Query strings, read strictly where strictness matters: paths."""

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from cove.models.errors import error

_NAMES = (b"path", b"offset", b"limit")


class PathArgument(NamedTuple):
    """A path from a query string.

    Attributes:
        text: with `+` read as a space, as HTML forms encode it.
        literal: with `+` kept, or None where that makes no difference. Some clients do not encode paths at all.
    """

    text: str
    literal: str | None


def path_argument(request: Request, *, default: str | None = None) -> PathArgument:
    """The `path` of the query string.

    Raises:
        CoveError: MISSING_PARAMETER, or INVALID_PATH when it is not UTF-8.
    """
    raw = _argument(request, b"path")
    if raw is None:
        if default is None:
            raise error("MISSING_PARAMETER", "The query lacks `path`.", remedy="Send `?path=/...`.", field="path")
        return PathArgument(default, None)
    text = _decoded(raw.replace(b"+", b" "))
    return PathArgument(text, _decoded(raw) if b"+" in raw else None)


def byte_argument(request: Request, name: str) -> int | None:
    """A number of bytes from the query string, or None.

    Raises:
        CoveError: INVALID_REQUEST when it is not a plain decimal number.
    """
    raw = _argument(request, name.encode("ascii"))
    if raw is None:
        return None
    if not raw.isdigit() or len(raw) > 18:
        raise error(
            "INVALID_REQUEST",
            f"`{name}` is not a number of bytes.",
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
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise error("INVALID_PATH", "The path is not UTF-8.", remedy="Percent-encode the UTF-8 bytes of it.") from None
