"""Tokens that this server signs for one audience each: JWT (RFC 7519) with Ed25519 (RFC 8037)."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cove.core.clock import Clock
from cove.models.errors import error

C = TypeVar("C")

_ALGORITHM: Final = "EdDSA"
_MAX_TOKEN_CHARACTERS: Final = 2048
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")
"""RFC 7515 §7.1. The library skips what is not of the alphabet, and tokens become parts of header fields."""
_CACHED: Final = 4096


class SignedTokens(Generic[C]):
    """Issues and verifies them. What has been verified is remembered (bounded), because each request brings one.

    Args:
        audience: a token for another one is not valid (`aud`, RFC 7519 §4.1.3).
        required: names of the claims that each has, beside `aud` and `exp`.
        read: makes of a token's claims what `claims` answers; None for those that mean nothing.
        noun: for messages, "agent token".
    """

    def __init__(
        self,
        key: Ed25519PrivateKey,
        *,
        audience: str,
        required: tuple[str, ...],
        read: Callable[[Mapping[str, Any]], C | None],
        noun: str,
        clock: Clock,
    ) -> None:
        self._key = key
        self._public = key.public_key()
        self._audience = audience
        # Times are checked against our own clock, so that there is one rule.
        self._options: Any = {"require": ["aud", "exp", *required], "verify_exp": False, "verify_iat": False}
        self._read = read
        self._noun = noun
        self._clock = clock
        self._verified: OrderedDict[str, tuple[C, float]] = OrderedDict()

    def sign(self, claims: Mapping[str, str | int], *, now: int, expires: int) -> str:
        """A token that says `claims`, from `now` until `expires` (unix seconds)."""
        whole: dict[str, str | int] = {"aud": self._audience, **claims, "iat": now, "exp": expires}
        return jwt.encode(whole, self._key, algorithm=_ALGORITHM)

    def claims(self, token: str) -> C:
        """What the token says.

        Raises:
            CoveError: TOKEN_EXPIRED; UNAUTHORIZED for anything else that was not signed here for this audience.
        """
        known = self._verified.get(token)
        if known is None:
            known = self._check(token)
            self._verified[token] = known
            if len(self._verified) > _CACHED:
                self._verified.popitem(last=False)
        claims, expires = known
        if self._clock() >= expires:
            self._verified.pop(token, None)
            raise error("TOKEN_EXPIRED", f"The {self._noun} has expired.")
        return claims

    def _check(self, token: str) -> tuple[C, float]:
        not_valid = error("UNAUTHORIZED", f"The {self._noun} is not valid.")
        if len(token) > _MAX_TOKEN_CHARACTERS or _SHAPE.fullmatch(token) is None:
            raise not_valid
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token, self._public, algorithms=[_ALGORITHM], audience=self._audience, options=self._options
            )
        except (jwt.InvalidTokenError, ValueError) as failure:
            raise not_valid from failure
        found = self._read(claims) if type(claims["exp"]) is int else None
        if found is None:
            raise not_valid
        return found, float(claims["exp"])
