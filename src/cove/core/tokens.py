"""Tokens for the agents of sandboxes: JWT (RFC 7519) signed with Ed25519 (RFC 8037)."""

from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cove.core.clock import Clock, utc
from cove.core.key_files import make_once
from cove.models.errors import CoveError, error
from cove.models.identifiers import is_sandbox_id
from cove.models.sandboxes import AgentToken

AUDIENCE = "cove-agent"
LIFETIME_SECONDS = 24 * 3600
"""Clients refresh when less than an hour is left, so it has to be well above that."""

_ALGORITHM = "EdDSA"
_MAX_TOKEN_CHARACTERS = 2048
_CACHED = 4096


class AgentClaims(NamedTuple):
    """What a token says.

    Attributes:
        actor: whom it was made for: the id of an API key, for example. Empty in tokens of earlier versions.
    """

    sandbox_id: str
    actor: str = ""


class AgentTokens:
    """Issues and verifies them. What has been verified is remembered (bounded), because each request brings one."""

    def __init__(self, key: Ed25519PrivateKey, *, clock: Clock) -> None:
        self._key = key
        self._public = key.public_key()
        self._clock = clock
        self._verified: OrderedDict[str, tuple[AgentClaims, float]] = OrderedDict()

    @classmethod
    def load(cls, path: Path, *, clock: Clock) -> Self:
        """Use the key in a PEM file; see `load_signing_key`."""
        return cls(load_signing_key(path), clock=clock)

    def issue(self, sandbox_id: str, *, actor: str = "") -> AgentToken:
        """A fresh token for one sandbox.

        Args:
            actor: whom it is made for (`sub`, RFC 7519 §4.1.2): what is done with it is done in this name.
        """
        now = int(self._clock())
        expires = now + LIFETIME_SECONDS
        claims: dict[str, str | int] = {"aud": AUDIENCE, "sandbox_id": sandbox_id, "iat": now, "exp": expires}
        if actor:
            claims["sub"] = actor
        token = jwt.encode(claims, self._key, algorithm=_ALGORITHM)
        return AgentToken(auth_token=token, token_expires_at=utc(expires))

    def verify(self, token: str) -> str:
        """The id of the sandbox that the token is for; see `claims`.

        Raises:
            CoveError: as `claims`.
        """
        return self.claims(token).sandbox_id

    def claims(self, token: str) -> AgentClaims:
        """What the token says. That is nothing about whether the sandbox still lives.

        Raises:
            CoveError: TOKEN_EXPIRED; UNAUTHORIZED for anything else that this server did not sign for an agent.
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
            raise error("TOKEN_EXPIRED", "The agent token has expired.")
        return claims

    def _check(self, token: str) -> tuple[AgentClaims, float]:
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise error("UNAUTHORIZED", "The agent token is not valid.")
        # Times are checked against our own clock by the caller, so that there is one rule.
        options: Any = {"require": ["aud", "exp", "sandbox_id"], "verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(token, self._public, algorithms=[_ALGORITHM], audience=AUDIENCE, options=options)
        except (jwt.InvalidTokenError, ValueError) as failure:
            raise error("UNAUTHORIZED", "The agent token is not valid.") from failure
        sandbox_id, expires, actor = claims["sandbox_id"], claims["exp"], claims.get("sub", "")
        shaped = isinstance(sandbox_id, str) and isinstance(expires, int) and isinstance(actor, str)
        if not shaped or not is_sandbox_id(sandbox_id):
            raise error("UNAUTHORIZED", "The agent token is not valid.")
        return AgentClaims(sandbox_id, actor), float(expires)


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file, which is made at first (mode 0600), by exactly one of several processes.

    Raises:
        CoveError: INTERNAL_ERROR when the file holds something else.
    """
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        make_once(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as failure:
        raise _bad_key(path) from failure
    if not isinstance(key, Ed25519PrivateKey):
        raise _bad_key(path)
    return key


def _bad_key(path: Path) -> CoveError:
    return error(
        "INTERNAL_ERROR",
        f"{path} does not hold an Ed25519 key.",
        remedy="Remove the file: a new key is made, and clients refresh their tokens.",
    )
