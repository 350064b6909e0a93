"""Keys that a microsandbox server gave out: `msb_` and a JWT (RFC 7519) signed with the server's key.

An operator who takes that key over lets them go on working. They are known nowhere, so none can be revoked alone.
"""

import hashlib
import math
from typing import Any

import jwt

from cove.core.clock import Clock
from cove.core.namespace_access import check_namespace
from cove.core.principal import FIRST_ORGANIZATION, Principal
from cove.models.errors import CoveError, error
from cove.models.scopes import EVERY_NAMESPACE, Scope
from cove.models.stored import DEFAULT_NAMESPACE

PREFIX = "msb_"
MIN_SECRET_CHARACTERS = 32

_ALGORITHM = "HS256"
_SCOPES = frozenset({Scope.READ, Scope.EXEC})
"""All that the old server knew."""


class MicrosandboxTokens:
    """Checks them. `secret` is the old server's key, at least 32 characters (RFC 7518 §3.2)."""

    def __init__(self, secret: str, *, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    def principal_of(self, key: str) -> Principal:
        """Whoever holds the key; its namespace is still to be looked up. One without a namespace, or for `*`, may
        enter any.

        Raises:
            CoveError: AUTHENTICATION_REQUIRED.
        """
        claims = self._claims(key.removeprefix(PREFIX))
        expires = claims["exp"]
        if isinstance(expires, bool) or not isinstance(expires, int | float) or not math.isfinite(expires):
            raise _refused("The API key's expiry is not a time.")
        if expires <= self._clock():
            raise _refused("The API key has expired.")
        namespace = claims.get("namespace", EVERY_NAMESPACE)
        actor = "msb-" + hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
        if namespace == EVERY_NAMESPACE:
            return Principal(
                DEFAULT_NAMESPACE, actor, FIRST_ORGANIZATION,
                expires_at=expires, scopes=_SCOPES, enters_any_namespace=True,
            )  # fmt: skip
        if not isinstance(namespace, str):
            raise _refused("The API key's namespace is not a name.")
        try:
            check_namespace(namespace)
        except CoveError as failure:
            raise _refused("The API key's namespace is not a name.") from failure
        return Principal(namespace, actor, expires_at=expires, scopes=_SCOPES)

    def _claims(self, token: str) -> dict[str, Any]:
        # Times are compared here, with this server's clock; RFC 7519 allows fractions.
        options: Any = {"require": ["exp"], "verify_exp": False, "verify_iat": False, "verify_nbf": False}
        try:
            return jwt.decode(token, self._secret, algorithms=[_ALGORITHM], options=options)
        except (jwt.InvalidTokenError, ValueError) as failure:
            raise _refused("The API key is not known here.") from failure


def is_microsandbox_token(key: str) -> bool:
    """Whether it has the shape: keys of our own that begin the same have one dot less."""
    return key.startswith(PREFIX) and key.count(".") == 2


def _refused(message: str) -> CoveError:
    return error("AUTHENTICATION_REQUIRED", message)
