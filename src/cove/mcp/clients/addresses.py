"""The address of a server, as users give it."""

from urllib.parse import urlsplit

from cove.mcp.clients.entries import DEFAULT_URL, ENDPOINT
from cove.models.errors import CoveError, error


def server_address(text: str, *, http: bool) -> str:
    """`text` without `/mcp` and slashes at its end.

    Args:
        http: clients connect to it by themselves, so that it cannot be a unix socket.

    Raises:
        CoveError: it is no such address.
    """
    try:
        parts = urlsplit(text)
        named = parts.hostname and parts.port != 0
    except ValueError:
        raise _bad(text) from None
    if not text.isascii() or not text.isprintable() or any(mark in text for mark in " \"'<>{}$\\"):
        raise _bad(text)
    if parts.username is not None or parts.query or parts.fragment:
        raise _bad(text)
    if parts.scheme == "http+unix" and not http and parts.path.startswith("/"):
        return text
    if parts.scheme not in ("http", "https") or not named:
        raise _bad(text)
    return text.rstrip("/").removesuffix(ENDPOINT).rstrip("/")


def _bad(text: str) -> CoveError:
    return error(
        "INVALID_REQUEST",
        f"{text[:200]!r} is not the address of a Cove server.",
        remedy=f"Give something like {DEFAULT_URL}; keys do not belong into it.",
    )
