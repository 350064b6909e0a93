"""Secrets that programs use without seeing them: as they are asked for, kept, and put into requests by a host."""

import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from cove.models.base import Contract
from cove.models.egress_rules import EgressRule

MAX_SECRETS = 32
"""Of one sandbox."""
MAX_VAULT_SECRETS = 256
"""That are kept for one namespace."""
MIN_VALUE_BYTES = 8
"""A shorter one would be found, and taken out, all over what a server answers."""
MAX_VALUE_BYTES = 4096
MAX_HOSTS = 32
"""Of one secret."""
MAX_HOSTS_OF_ALL = 128
"""Of the secrets of one sandbox together."""
PLACEHOLDER_PREFIX = "cove-secret-"
_PLACEHOLDER_BYTES = 16
_TLS_PORTS = ((443, 443),)


class SecretPlace(StrEnum):
    """The parts of a request in which a placeholder becomes the value."""

    HEADERS = "headers"
    QUERY = "query"
    BODY = "body"


def new_placeholder() -> str:
    """What programs see in a secret's place: nothing that could be guessed, so that it stands for one secret only."""
    return PLACEHOLDER_PREFIX + secrets.token_hex(_PLACEHOLDER_BYTES)


def rule_of(host: str) -> EgressRule:
    """A host of a secret as a rule: on port 443 where it names no port."""
    rule = EgressRule.parse(host)
    return rule if rule.named_ports else replace(rule, ports=_TLS_PORTS)


def _value(value: str) -> str:
    """Something that a header can carry (RFC 9110 §5.5)."""
    if not MIN_VALUE_BYTES <= len(value.encode(errors="replace")) <= MAX_VALUE_BYTES:
        raise ValueError(f"a secret has {MIN_VALUE_BYTES} to {MAX_VALUE_BYTES} bytes")
    if not all(" " <= sign <= "~" for sign in value) or value != value.strip():
        raise ValueError("a secret holds visible ASCII characters, and blanks only between them")
    return value


def _host(text: str) -> str:
    """A rule that names hosts, in its one spelling."""
    rule = EgressRule.parse(text)
    if rule.name is None:
        raise ValueError(f"{text!r}: a secret goes to hosts that are named, as api.example.com or *.example.com")
    return str(rule)


def _sorted(places: Iterable[SecretPlace]) -> tuple[SecretPlace, ...]:
    return tuple(sorted(set(places)))


SecretValue = Annotated[str, AfterValidator(_value)]
SecretHost = Annotated[str, AfterValidator(_host)]
SecretHosts = Annotated[tuple[SecretHost, ...], Field(min_length=1, max_length=MAX_HOSTS)]
SecretPlaces = Annotated[
    tuple[SecretPlace, ...], Field(min_length=1, max_length=2 * len(SecretPlace)), AfterValidator(_sorted)
]
SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
"""Of the variable that holds the placeholder."""
VAULT_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
VaultName = Annotated[str, StringConstraints(pattern=VAULT_NAME_PATTERN)]


class SandboxSecret(Contract):
    """One entry of `secrets` of a create call: `{NAME: {...}}`, where NAME is the variable that programs read.

    Attributes:
        value: given with the call; or
        from_vault: the name of a secret of the key's namespace that the server keeps.
        hosts: to which the value may go, over TLS (see `cove.models.egress_rules`; port 443 where none is named). They
            have to be allowed by the sandbox's network policy too. With `from_vault`: some of those that the secret
            is kept for; absent: all of them.
        places: where in a request; absent: in headers, or with `from_vault` where the secret is kept for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: SecretValue | None = Field(default=None, repr=False)
    from_vault: VaultName | None = None
    hosts: SecretHosts | None = None
    places: SecretPlaces | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "SandboxSecret":
        if (self.value is None) == (self.from_vault is None):
            raise ValueError("give either value or from_vault")
        if self.value is not None and self.hosts is None:
            raise ValueError("hosts are missing: name those that the value may go to")
        return self


def _not_too_many_hosts(secrets: dict[str, SandboxSecret]) -> dict[str, SandboxSecret]:
    if sum(len(secret.hosts or ()) for secret in secrets.values()) > MAX_HOSTS_OF_ALL:
        raise ValueError(f"the secrets of a sandbox have at most {MAX_HOSTS_OF_ALL} hosts together")
    return secrets


SandboxSecrets = Annotated[
    dict[SecretName, SandboxSecret], Field(max_length=MAX_SECRETS), AfterValidator(_not_too_many_hosts)
]


class SecretUse(Contract):
    """A secret of a sandbox, as it is shown.

    Attributes:
        hosts, places: to which hosts, and where in a request, the value goes.
        from_vault: of which secret of the namespace it has its value, if it has.
        withdrawn: whether it was taken away: its placeholder stands for nothing any more.
    """

    hosts: tuple[str, ...]
    places: tuple[SecretPlace, ...]
    from_vault: str | None = None
    withdrawn: bool = False


class BoundSecret(SecretUse):
    """A secret of a sandbox, as the control plane keeps it: without its value."""

    placeholder: str


class EgressSecret(Contract):
    """A secret as a host holds it.

    Attributes:
        name: the variable that holds the placeholder.
        placeholder: what programs see in the value's place.
        hosts, places: as in `SandboxSecret`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    placeholder: str
    value: SecretValue = Field(repr=False)
    hosts: tuple[SecretHost, ...]
    places: frozenset[SecretPlace]


class SetVaultSecret(Contract):
    """Body of `PUT /v1/secrets/{name}`.

    Attributes:
        hosts: to which the value may go; sandboxes may be given it for these, or for some of them. May be absent where
            the secret exists: then they stay.
        places: where in a request; absent: they stay, and are the headers at first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: SecretValue = Field(repr=False)
    hosts: SecretHosts | None = None
    places: SecretPlaces | None = None


class SetSandboxSecret(Contract):
    """Body of `PUT /v1/sandboxes/{id}/secrets/{name}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: SecretValue = Field(repr=False)


class VaultSecret(Contract):
    """A secret that the server keeps for a namespace. Its value is never shown.

    Attributes:
        sandboxes: how many that have not ended use it.
    """

    object: str = "secret"
    name: str
    hosts: tuple[str, ...]
    places: tuple[SecretPlace, ...]
    created_at: datetime
    updated_at: datetime
    sandboxes: int = 0


class VaultSecretAnswer(VaultSecret):
    """Answer to `PUT` and `DELETE /v1/secrets/{name}`.

    Attributes:
        behind: of `sandboxes`, how many have not had the change yet, because their host did not answer; it is tried
            until they have.
        deleted: whether it is no more.
    """

    behind: int = 0
    deleted: bool = False
    request_id: str | None = None


class VaultSecretList(Contract):
    """Answer to `GET /v1/secrets`, by name."""

    object: str = "list"
    data: tuple[VaultSecret, ...]
    request_id: str | None = None


class SandboxSecretAnswer(SecretUse):
    """Answer to `PUT` and `DELETE /v1/sandboxes/{id}/secrets/{name}`."""

    id: str
    name: str
    request_id: str | None = None
