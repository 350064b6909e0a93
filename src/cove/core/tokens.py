"""Tokens for sandboxes: those that open a sandbox's agent, and those of links to a port of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cove.core.clock import Clock, utc
from cove.core.signed_tokens import SignedTokens
from cove.keys.files import make_once
from cove.models.errors import CoveError, error
from cove.models.identifiers import is_sandbox_id
from cove.models.sandboxes import AgentToken

AUDIENCE = "cove-agent"
PREVIEW_AUDIENCE = "cove-preview"
LIFETIME_SECONDS = 24 * 3600
"""Clients refresh when less than an hour is left, so it has to be well above that."""


class AgentClaims(NamedTuple):
    """What a token says.

    Attributes:
        actor: whom it was made for: the id of an API key, for example. Empty in tokens of earlier versions.
    """

    sandbox_id: str
    actor: str = ""


class PreviewClaims(NamedTuple):
    """What the token of a link says.

    Attributes:
        epoch: of the sandbox's previews when it was made (see `PreviewTerms`).
        expires_at: unix seconds.
    """

    sandbox_id: str
    port: int
    epoch: int
    expires_at: int


class AgentTokens:
    """Issues and verifies both kinds. Neither is ever taken for the other: they have different audiences."""

    def __init__(self, key: Ed25519PrivateKey, *, clock: Clock) -> None:
        self._clock = clock
        self._agents = SignedTokens(
            key, audience=AUDIENCE, required=("sandbox_id",), read=_agent_claims, noun="agent token", clock=clock
        )
        self._previews = SignedTokens(
            key,
            audience=PREVIEW_AUDIENCE,
            required=("sandbox_id", "port", "epoch"),
            read=_preview_claims,
            noun="link",
            clock=clock,
        )

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
        claims: dict[str, str | int] = {"sandbox_id": sandbox_id}
        if actor:
            claims["sub"] = actor
        return AgentToken(auth_token=self._agents.sign(claims, now=now, expires=expires), token_expires_at=utc(expires))

    def issue_preview(self, sandbox_id: str, port: int, *, epoch: int, expires_at: int) -> str:
        """A token for one port of one sandbox, until `expires_at` (unix seconds) or a later epoch."""
        claims: dict[str, str | int] = {"sandbox_id": sandbox_id, "port": port, "epoch": epoch}
        return self._previews.sign(claims, now=int(self._clock()), expires=expires_at)

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
        return self._agents.claims(token)

    def preview_claims(self, token: str) -> PreviewClaims:
        """What the token of a link says; nothing about whether its epoch is over.

        Raises:
            CoveError: TOKEN_EXPIRED; UNAUTHORIZED for anything else that this server did not sign for a link.
        """
        return self._previews.claims(token)


def _agent_claims(claims: Mapping[str, Any]) -> AgentClaims | None:
    sandbox_id, actor = claims["sandbox_id"], claims.get("sub", "")
    shaped = isinstance(sandbox_id, str) and isinstance(actor, str) and is_sandbox_id(sandbox_id)
    return AgentClaims(sandbox_id, actor) if shaped else None


def _preview_claims(claims: Mapping[str, Any]) -> PreviewClaims | None:
    sandbox_id, port, epoch, expires = claims["sandbox_id"], claims["port"], claims["epoch"], claims["exp"]
    shaped = isinstance(sandbox_id, str) and is_sandbox_id(sandbox_id) and type(port) is int and type(epoch) is int
    return PreviewClaims(sandbox_id, port, epoch, expires) if shaped else None


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
