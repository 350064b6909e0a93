"""OAuth 2.1 access tokens for `/mcp`: this server is the resource server, somebody else's issues them.

JWTs as RFC 9068 has them, signed by the one issuer that the operator named, for this very resource (RFC 8707).
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, cast

import jwt

from cove.core.namespace_access import NamespaceAccess, check_namespace
from cove.core.principal import Principal
from cove.models.errors import CoveError, error
from cove.models.scopes import Scope
from cove.server.mcp.issuer_keys import ALGORITHMS, IssuerKeys

MAX_TOKEN_CHARACTERS: Final = 8192
ACTOR_PREFIX: Final = "oauth:"

_LEEWAY_SECONDS: Final = 30
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_SUBJECT = re.compile(r"[A-Za-z0-9_.@|+:-]{1,120}")
_NAMES: Final[Mapping[str, Scope]] = {
    "read": Scope.READ,
    "exec": Scope.EXEC,
    "admin": Scope.ADMIN,
    "sandbox:read": Scope.READ,
    "sandbox:write": Scope.EXEC,
}


class ResourceServer:
    """Checks access tokens.

    Args:
        metadata_url: where clients learn who issues them.
        audience: must be among those that a token names.
        namespace_claim: the claim that holds the namespace; without it everybody has one of their own.
    """

    def __init__(
        self,
        keys: IssuerKeys,
        namespaces: NamespaceAccess,
        *,
        metadata_url: str,
        issuer: str,
        audience: str,
        namespace_claim: str,
    ) -> None:
        self.metadata_url = metadata_url
        self._keys = keys
        self._namespaces = namespaces
        self._issuer = issuer
        self._audience = audience
        self._namespace_claim = namespace_claim

    async def principal_of(self, token: str) -> Principal:
        """Whom the token was issued to.

        Raises:
            CoveError: AUTHENTICATION_REQUIRED; FORBIDDEN when it allows nothing here; HOST_UNAVAILABLE when its issuer
                cannot be asked for keys; RESOURCE_LIMIT_EXCEEDED.
        """
        claims = await self._claims(token)
        subject: str = claims["sub"]
        scopes = _scopes(claims)
        if not scopes:
            raise error("FORBIDDEN", "The access token has no scope that is known here.", scope=str(Scope.READ))
        namespace = self._namespace(claims, subject)
        principal = Principal(namespace, _actor(subject), scopes=scopes)
        return await self._namespaces.placed(principal, namespace, making=True)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _refused("it is too long")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError) as problem:
            raise _refused("it is not a signed JWT") from problem
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or not isinstance(key_id, str | None):
            raise _refused("it is not signed with an algorithm that is accepted here")
        if str(header.get("typ", "JWT")).lower() not in _TYPES or "crit" in header:
            raise _refused("it is not an access token")
        key = await self._keys.find(key_id, algorithm)
        if key is None:
            raise _refused("it is not signed with a key of the issuer")
        return self._verified(token, key, algorithm)

    def _verified(self, token: str, key: Any, algorithm: str) -> Mapping[str, Any]:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise _refused("it has expired") from None
        except jwt.InvalidAudienceError:
            raise _refused("it is for another audience") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as problem:
            raise _refused("it is not valid") from problem
        if "cnf" in claims:
            # RFC 9449 §7.2: whoever steals one that is bound to a key must not be able to use it without.
            raise _refused("it is bound to a key of the client, which this server cannot check")
        if not claims["sub"]:
            raise _refused("it names nobody")
        return claims

    def _namespace(self, claims: Mapping[str, Any], subject: str) -> str:
        named: Any = claims.get(self._namespace_claim)
        if named is None:
            digest = hashlib.blake2b(f"{self._issuer}\0{subject}".encode("utf-8", "backslashreplace"), digest_size=15)
            return "u-" + base64.b32encode(digest.digest()).decode("ascii").lower()
        try:
            check_namespace(named if isinstance(named, str) else "")
        except CoveError:
            raise _refused(f"its claim {self._namespace_claim!r} is not the name of a namespace") from None
        return cast("str", named)


def is_access_token(credential: str) -> bool:
    """Whether it has the shape of a JWT (RFC 7519 §3.1: a JSON object in base64url comes first)."""
    return credential.startswith("eyJ") and credential.count(".") == 2


def _scopes(claims: Mapping[str, Any]) -> frozenset[Scope]:
    """`scope` is text with blanks between (RFC 9068 §2.2.3); some issuers send `scp`, as text or a list."""
    named: list[Any] = []
    for claim in ("scope", "scp"):
        value: Any = claims.get(claim)
        if isinstance(value, str):
            named += value.split()
        elif isinstance(value, list):
            named += cast("list[Any]", value)
    return frozenset(_NAMES[name] for name in named if isinstance(name, str) and name in _NAMES)


def _actor(subject: str) -> str:
    if _SUBJECT.fullmatch(subject):
        return ACTOR_PREFIX + subject
    return f"{ACTOR_PREFIX}#{hashlib.blake2b(subject.encode('utf-8', 'backslashreplace'), digest_size=12).hexdigest()}"


def _refused(why: str) -> CoveError:
    return error(
        "AUTHENTICATION_REQUIRED", f"The access token is refused: {why}.", remedy="Get a new one from its issuer."
    )
