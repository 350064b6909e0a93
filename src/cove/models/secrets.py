"""Secrets that programs use without seeing them: as they are asked for, and as a host puts them into requests."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from cove.models.base import Contract
from cove.models.egress_rules import EgressRule

MAX_SECRETS = 32
"""Of one sandbox."""
MAX_VALUE_BYTES = 4096
MAX_HOSTS = 32


class SecretPlace(StrEnum):
    """The parts of a request in which a placeholder becomes the value."""

    HEADERS = "headers"
    QUERY = "query"
    BODY = "body"


def _value(value: str) -> str:
    """Something that a header can carry (RFC 9110 §5.5)."""
    if not value or len(value.encode()) > MAX_VALUE_BYTES:
        raise ValueError(f"a secret has 1 to {MAX_VALUE_BYTES} bytes")
    if not all(" " <= sign <= "~" for sign in value) or value != value.strip():
        raise ValueError("a secret holds visible ASCII characters, and blanks only between them")
    return value


def _host(text: str) -> str:
    """A rule that names hosts, in its one spelling."""
    rule = EgressRule.parse(text)
    if rule.name is None:
        raise ValueError(f"{text!r}: a secret goes to hosts that are named, as api.example.com or *.example.com")
    return str(rule)


SecretValue = Annotated[str, AfterValidator(_value), Field(repr=False)]
SecretHost = Annotated[str, AfterValidator(_host)]


class SandboxSecret(Contract):
    """One entry of `secrets` of a create call: `{NAME: {...}}`, where NAME is the variable that programs read.

    Attributes:
        value: given with the call; or
        from_vault: the name of a secret of the key's namespace that the server keeps.
        hosts: to which the value may go, over TLS (see `cove.models.egress_rules`; port 443 where none is named). They
            have to be allowed by the sandbox's network policy too.
        places: where in a request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: SecretValue | None = None
    from_vault: str | None = None
    hosts: tuple[SecretHost, ...] = Field(min_length=1, max_length=MAX_HOSTS)
    places: frozenset[SecretPlace] = Field(default=frozenset({SecretPlace.HEADERS}), min_length=1)

    @model_validator(mode="after")
    def _one_source(self) -> "SandboxSecret":
        if (self.value is None) == (self.from_vault is None):
            raise ValueError("give either value or from_vault")
        return self


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
    value: SecretValue
    hosts: tuple[SecretHost, ...]
    places: frozenset[SecretPlace]
