"""Sessions of people who log in with an API key: short tokens that open the account routes and nothing else.

A session names the key that it was opened with, and ends when that key is revoked or expires.
"""

from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cove.core.clock import Clock
from cove.models.errors import CoveError, error

ACCESS_SECONDS = 3600
"""Clients ask for a new one when less than five minutes are left."""

REFRESH_SECONDS = 30 * 24 * 3600

_ACCESS = "cove-account"
_REFRESH = "cove-account-refresh"
_ALGORITHM = "EdDSA"
_MAX_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Session:
    """What a login gives out. Times are unix seconds."""

    access_token: str
    refresh_token: str
    expires_at: int


class Sessions:
    """Opens and checks sessions: JWT (RFC 7519) signed with Ed25519, told apart from other tokens by their audience."""

    def __init__(self, key: Ed25519PrivateKey, *, clock: Clock) -> None:
        self._key = key
        self._public = key.public_key()
        self._clock = clock

    def open(self, key_id: str) -> Session:
        """A session of this API key, which the caller has verified."""
        access, expires = self._sign(key_id, _ACCESS, ACCESS_SECONDS)
        refresh, _ = self._sign(key_id, _REFRESH, REFRESH_SECONDS)
        return Session(access, refresh, expires)

    def key_of(self, access_token: str) -> str:
        """The id of the key behind an access token; whether that key is still in force is another question.

        Raises:
            CoveError: AUTHENTICATION_REQUIRED.
        """
        return self._check(access_token, _ACCESS)

    def key_of_refresh(self, refresh_token: str) -> str:
        """The same for a refresh token."""
        return self._check(refresh_token, _REFRESH)

    def _sign(self, key_id: str, audience: str, seconds: int) -> tuple[str, int]:
        now = int(self._clock())
        claims = {"aud": audience, "sub": key_id, "iat": now, "exp": now + seconds}
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM), now + seconds

    def _check(self, token: str, audience: str) -> str:
        if len(token) > _MAX_CHARACTERS:
            raise _refused("The session's token is malformed.")
        options: Any = {"require": ["aud", "exp", "sub"], "verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(token, self._public, algorithms=[_ALGORITHM], audience=audience, options=options)
        except (jwt.InvalidTokenError, ValueError) as failure:
            raise _refused("The session's token is not valid.") from failure
        key_id, expires = claims["sub"], claims["exp"]
        if not isinstance(key_id, str) or not isinstance(expires, int):
            raise _refused("The session's token is not valid.")
        if expires <= self._clock():
            raise _refused("The session has expired.")
        return key_id


def is_session_token(text: str) -> bool:
    """Whether it has the shape of a JWT; API keys do not."""
    return text.count(".") == 2 and text.startswith("ey")


def _refused(message: str) -> CoveError:
    return error("AUTHENTICATION_REQUIRED", message, remedy="Log in again with an API key, or send the key itself.")
