"""The public keys of an authorization server: found by its metadata (RFC 8414, OpenID Connect Discovery), fetched as a
JWK Set (RFC 7517), kept for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import structlog
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from cove.models.errors import CoveError, error

Fetch = Callable[[str], Awaitable[Mapping[str, Any]]]
"""The JSON object at a URL. Bounded in time and size; raises CoveError."""

REFRESH_SECONDS: Final = 30.0
"""Between two fetches, however many tokens name keys that are not known."""

MAX_AGE_SECONDS: Final = 600.0
"""Keys are fetched again after this: one that was withdrawn is honoured no longer."""

MAX_STALE_SECONDS: Final = 3600.0
"""So long they are used while the issuer does not answer."""

_RETRY_SECONDS: Final = 5.0
"""Between two fetches while no key is known at all."""

_MAX_KEYS: Final = 64
_MIN_RSA_BITS: Final = 2048


class _Kind(NamedTuple):
    key_type: str
    curves: frozenset[str] = frozenset()


_RSA = _Kind("RSA")
ALGORITHMS: Final[Mapping[str, _Kind]] = {
    "RS256": _RSA,
    "RS384": _RSA,
    "RS512": _RSA,
    "PS256": _RSA,
    "PS384": _RSA,
    "PS512": _RSA,
    "ES256": _Kind("EC", frozenset({"P-256"})),
    "ES384": _Kind("EC", frozenset({"P-384"})),
    "ES512": _Kind("EC", frozenset({"P-521"})),
    "EdDSA": _Kind("OKP", frozenset({"Ed25519"})),
}
"""What tokens may be signed with (RFC 7518, RFC 8037): no algorithm with a secret, so nothing public can sign."""


class IssuerKeys:
    """Keys of one issuer, fetched when they are needed."""

    def __init__(self, issuer: str, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys: tuple[Mapping[str, Any], ...] = ()
        self._parsed: dict[tuple[int, str], Any] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._turn = asyncio.Lock()
        self._log = structlog.get_logger("cove.oauth")

    async def find(self, key_id: str | None, algorithm: str) -> Any | None:
        """The key with this id, for this algorithm, or None. Without an id: the only one that there is for it.

        Raises:
            CoveError: HOST_UNAVAILABLE when the issuer cannot be asked.
        """
        if self._clock() - self._fetched_at > MAX_AGE_SECONDS:
            await self._refresh()
        found = self._known(key_id, algorithm)
        if found is None and await self._refresh():
            found = self._known(key_id, algorithm)
        return found

    def _known(self, key_id: str | None, algorithm: str) -> Any | None:
        fitting = [index for index, key in enumerate(self._keys) if _fits(key, algorithm)]
        if key_id is not None:
            fitting = [index for index in fitting if self._keys[index].get("kid") == key_id]
        if not fitting or (key_id is None and len(fitting) > 1):
            return None
        place = fitting[0], algorithm
        if place not in self._parsed:
            self._parsed[place] = _public_key(self._keys[fitting[0]], algorithm)
        return self._parsed[place]

    async def _refresh(self) -> bool:
        """Fetch, unless that was done a moment ago; answers whether anything may be new.

        Raises:
            CoveError: HOST_UNAVAILABLE when there are no keys that may still be used.
        """
        waiting_since = self._clock()
        async with self._turn:
            now = self._clock()
            if self._fetched_at >= waiting_since:
                return True
            if now - self._tried_at < (REFRESH_SECONDS if self._keys else _RETRY_SECONDS):
                self._check_usable(now)
                return False
            self._tried_at = now
            try:
                keys = await self._fetch_keys()
            except CoveError as failure:
                self._log.warning("issuer_not_reached", issuer=self._issuer, error=str(failure))
                self._check_usable(now)
                return False
            self._keys, self._fetched_at = keys, self._clock()
            self._parsed.clear()
            return True

    def _check_usable(self, now: float) -> None:
        if now - self._fetched_at > MAX_STALE_SECONDS:
            raise error(
                "HOST_UNAVAILABLE",
                "The authorization server that issues tokens for this server does not answer.",
                remedy="Try again later, or use an API key.",
            )

    async def _fetch_keys(self) -> tuple[Mapping[str, Any], ...]:
        metadata = await self._metadata()
        url = metadata.get("jwks_uri")
        if not isinstance(url, str) or not may_be_fetched(url, issuer=self._issuer):
            raise error("HOST_UNAVAILABLE", "The metadata of the authorization server names no `jwks_uri` over https.")
        keys: Any = (await self._fetch(url)).get("keys")
        if not isinstance(keys, list):
            raise error("HOST_UNAVAILABLE", "The authorization server's keys are not a JWK Set.")
        found = [cast("dict[str, Any]", key) for key in cast("list[Any]", keys)[:_MAX_KEYS] if isinstance(key, dict)]
        return tuple(found)

    async def _metadata(self) -> Mapping[str, Any]:
        failure: CoveError | None = None
        for url in metadata_urls(self._issuer):
            try:
                metadata = await self._fetch(url)
            except CoveError as problem:
                failure = failure or problem
                continue
            if metadata.get("issuer") == self._issuer:
                return metadata
            failure = error("HOST_UNAVAILABLE", f"The metadata at {url} is of another issuer (RFC 8414 section 3.3).")
        assert failure is not None
        raise failure


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where the metadata may be, in the order in which they are tried (RFC 8414 §3.1, OpenID Connect Discovery §4)."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return tuple(
        dict.fromkeys(
            (
                f"{origin}/.well-known/oauth-authorization-server{path}",
                f"{origin}/.well-known/openid-configuration{path}",
                f"{origin}{path}/.well-known/openid-configuration",
            )
        )
    )


def may_be_fetched(url: str, *, issuer: str) -> bool:
    """Whether keys may come from there: over https, or from this machine where the issuer itself is on it."""
    parts, own = urlsplit(url), urlsplit(issuer)
    return parts.scheme == "https" or (parts.scheme == own.scheme == "http" and parts.hostname == own.hostname)


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    kind = ALGORITHMS[algorithm]
    return (
        key.get("kty") == kind.key_type
        and (not kind.curves or key.get("crv") in kind.curves)
        and key.get("alg", algorithm) == algorithm
        and key.get("use", "sig") == "sig"
    )


def _public_key(key: Mapping[str, Any], algorithm: str) -> Any | None:
    """As the signature is checked with; None for one that cannot be read, or is too short (RFC 7518 §3.3)."""
    # A set should not hold private keys (RFC 7517 §9.2); if it does, its issuer is to be asked why, not this server.
    public = {name: value for name, value in key.items() if name not in {"d", "p", "q", "dp", "dq", "qi", "oth"}}
    try:
        found: Any = PyJWK(public, algorithm).key
    except (PyJWTError, ValueError, TypeError):
        return None
    return None if algorithm[:2] in {"RS", "PS"} and found.key_size < _MIN_RSA_BITS else found
