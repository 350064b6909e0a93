"""Where the server is and which key to show it: arguments, then environment variables, then the default."""

import os
import re
import ssl
from dataclasses import dataclass, field, replace
from functools import cache
from urllib.parse import SplitResult, unquote, urlsplit

import httpx2

from cove.models.errors import error
from cove.models.sandboxes import NAME_PATTERN
from cove.models.scopes import EVERY_NAMESPACE, NAMESPACE_HEADER
from cove.models.version import VERSION

DEFAULT_BASE_URL = "http://127.0.0.1:5555"
BASE_URL_VARIABLE = "COVE_BASE_URL"
API_KEY_VARIABLE = "COVE_API_KEY"
USER_AGENT = f"cove-python/{VERSION}"

_UNIX_SCHEME = "http+unix"
_POOL = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=15.0)


@dataclass(frozen=True)
class Endpoint:
    """A server as this client reaches it.

    Attributes:
        url: scheme, host, port and path prefix, without a slash at the end.
        socket_path: a unix socket that carries every request, whatever host its URL names; None means TCP.
        api_key: for the control plane; None sends none (`cove serve --dev` needs none).
        namespace: which one the requests are about, for keys that may enter several; None is the key's own.
    """

    url: str
    socket_path: str | None = None
    api_key: str | None = field(default=None, repr=False)
    namespace: str | None = None

    @property
    def control_headers(self) -> tuple[tuple[str, str], ...]:
        """What every request to the control plane carries."""
        key = () if self.api_key is None else (("X-API-Key", self.api_key),)
        return key if self.namespace is None else (*key, (NAMESPACE_HEADER, self.namespace))

    def within(self, namespace: str) -> "Endpoint":
        """The same, about another namespace.

        Raises:
            InvalidRequest: there can be no such namespace.
        """
        _check_namespace(namespace)
        return replace(self, namespace=namespace)


def resolve_endpoint(
    *, base_url: str | None = None, api_key: str | None = None, namespace: str | None = None
) -> Endpoint:
    """The server to talk to: an argument wins over `COVE_BASE_URL` and `COVE_API_KEY`, which win over the default.

    `base_url` is `http://...`, `https://...` or `http+unix:///path/to/socket`.

    Raises:
        InvalidRequest: the URL has no such form, the key holds characters that no HTTP header can carry, or the
            namespace cannot be one.
    """
    _check_namespace(namespace)
    url = base_url or os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
    key = api_key or os.environ.get(API_KEY_VARIABLE) or None
    if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise error(
            "INVALID_REQUEST",
            "The API key holds a space, line break or other character that a key never has.",
            remedy="Pass it exactly as `cove keys create` printed it.",
        )
    parts = _split(url)
    if parts.scheme == _UNIX_SCHEME:
        return Endpoint("http://localhost", _socket_path(url, parts), key, namespace)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise _bad_url(url)
    return Endpoint(url.rstrip("/"), None, key, namespace)


def _check_namespace(namespace: str | None) -> None:
    if namespace not in (None, EVERY_NAMESPACE) and re.fullmatch(NAME_PATTERN, namespace) is None:
        raise error(
            "INVALID_REQUEST",
            f"{namespace[:80]!r} cannot be a namespace: they are letters, digits, hyphens and underscores.",
            field="namespace",
        )


def async_transport(endpoint: Endpoint, *, secure: bool) -> httpx2.AsyncBaseTransport:
    """Connections to `endpoint`; `secure` loads the certificate authorities that https needs."""
    return httpx2.AsyncHTTPTransport(verify=tls_context(secure=secure), limits=_POOL, uds=endpoint.socket_path)


def transport(endpoint: Endpoint, *, secure: bool) -> httpx2.BaseTransport:
    """As `async_transport`, for blocking callers."""
    return httpx2.HTTPTransport(verify=tls_context(secure=secure), limits=_POOL, uds=endpoint.socket_path)


def tls_context(*, secure: bool) -> ssl.SSLContext:
    """Loading the authorities takes 40 ms, which plain http need not pay. Without them every https peer is refused."""
    return httpx2.create_ssl_context() if secure else _without_authorities()


@cache
def _without_authorities() -> ssl.SSLContext:
    """One for all: making it takes 0.6 ms, and nobody changes it."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - a property that raises on a bad port
    except ValueError:
        raise _bad_url(url) from None
    if not (url.isascii() and url.isprintable()) or " " in url or parts.username is not None:
        raise _bad_url(url)
    return parts


def _socket_path(url: str, parts: SplitResult) -> str:
    path = unquote(parts.netloc + parts.path)
    if not path.startswith("/") or "\0" in path:
        raise _bad_url(url)
    return path


def _bad_url(url: str) -> Exception:
    return error(
        "INVALID_REQUEST",
        f"{url[:200]!r} is not the address of a Cove server.",
        remedy=f"Give something like {DEFAULT_BASE_URL} or http+unix:///path/to/socket"
        f" (argument base_url or the variable {BASE_URL_VARIABLE}).",
    )
