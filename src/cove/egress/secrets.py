"""The secrets of one sandbox: which placeholder becomes which value, and where it may."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, quote_plus

from cove.egress.refusals import Refused
from cove.egress.scrubbing import forms, scrubbed, undecided
from cove.models.egress_rules import EgressRule
from cove.models.network import RefusalCause
from cove.models.secrets import EgressSecret, SecretPlace, rule_of

Encode = Callable[[str], str]
"""How a value is written where it is put."""


def as_it_is(value: str) -> str:
    """For headers, and for bodies that have no rules of their own."""
    return value


def in_query(value: str) -> str:
    """For a URL (RFC 3986 §2.1)."""
    return quote(value, safe="")


def in_body(content_type: bytes) -> Encode:
    """For a body of this type."""
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == b"application/x-www-form-urlencoded":
        return quote_plus
    if kind == b"application/json" or kind.endswith(b"+json"):
        return lambda value: json.dumps(value)[1:-1]
    return as_it_is


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes.

    Attributes:
        host: empty when only an address is known.
        over_tls: to a server that has proved to be this host.
    """

    host: str
    port: int
    over_tls: bool


@dataclass(frozen=True, slots=True)
class _Secret:
    of: EgressSecret
    rules: tuple[EgressRule, ...]


@dataclass(frozen=True, slots=True)
class Secrets:
    """As they are at one moment; empty for a sandbox without.

    Attributes:
        needles: all forms of all values, to be taken out of answers.
    """

    secrets: dict[bytes, _Secret]
    needles: tuple[bytes, ...]
    _placeholders: re.Pattern[bytes] | None

    @classmethod
    def of(cls, secrets: Iterable[EgressSecret]) -> Self:
        """From what the host daemon told."""
        table = {one.placeholder.encode(): _Secret(one, tuple(map(rule_of, one.hosts))) for one in secrets}
        needles: set[bytes] = set()
        for one in table.values():
            needles |= forms(one.of.value)
        return cls(
            secrets=table,
            needles=tuple(sorted(needles)),
            _placeholders=re.compile(b"|".join(map(re.escape, table))) if table else None,
        )

    def __bool__(self) -> bool:
        return bool(self.secrets)

    def has_port(self, port: int) -> bool:
        """Whether one of them goes to a host on `port`."""
        return any(rule.has_port(port) for one in self.secrets.values() for rule in one.rules)

    def may_be_in_body(self, destination: Destination) -> bool:
        """Whether there is one that may be in the body of a request there."""
        return any(SecretPlace.BODY in one.of.places and _may_go(one, destination) for one in self.secrets.values())

    def fill(self, data: bytes, place: SecretPlace, destination: Destination, encode: Encode) -> bytes:
        """`data` with its placeholders replaced.

        Raises:
            Refused: one of them may not be there.
        """
        filled, rest = self.filled(data, place, destination, encode)
        return filled + rest

    def filled(self, data: bytes, place: SecretPlace, destination: Destination, encode: Encode) -> tuple[bytes, bytes]:
        """As `fill`, up to the last placeholder; and what comes after it.

        Raises:
            Refused: one of them may not be there.
        """
        if self._placeholders is None:
            return b"", data
        parts: list[bytes] = []
        done = 0
        for found in self._placeholders.finditer(data):
            one = self.secrets[found[0]]
            _check(one, place, destination)
            parts += data[done : found.start()], encode(one.of.value).encode("ascii")
            done = found.end()
        return b"".join(parts), data[done:]

    def are_in(self, data: bytes) -> bool:
        """Whether there is a placeholder."""
        return self._placeholders is not None and self._placeholders.search(data) is not None

    def forbid(self, data: bytes, where: str) -> None:
        """For places where no placeholder may be.

        Raises:
            Refused: there is one.
        """
        found = self._placeholders.search(data) if self._placeholders else None
        if found:
            reason = f"the secret {self.secrets[found[0]].of.name} may not be in {where}"
            raise Refused(reason, cause=RefusalCause.SECRET)

    def undecided(self, data: bytes) -> int:
        """Where the end of `data` begins that could be the beginning of a placeholder."""
        return undecided(data, self.secrets)

    def scrub(self, data: bytes) -> bytes:
        """Without values, whole."""
        return scrubbed(data, self.needles) if self.needles else data

    def scrub_text(self, text: str) -> str:
        """For what is told to programs and operators."""
        return self.scrub(text.encode()).decode(errors="replace") if self.needles else text


NO_SECRETS: Final = Secrets.of(())


def _check(secret: _Secret, place: SecretPlace, destination: Destination) -> None:
    name = secret.of.name
    if not destination.over_tls:
        raise Refused(f"the secret {name} goes over TLS only", cause=RefusalCause.SECRET)
    if not _may_go(secret, destination):
        reason = f"the secret {name} may not go to {destination.host}:{destination.port}"
        raise Refused(reason, cause=RefusalCause.SECRET)
    if place not in secret.of.places:
        reason = f"the secret {name} may not be in the {place.value} of a request"
        raise Refused(reason, cause=RefusalCause.SECRET)


def _may_go(secret: _Secret, destination: Destination) -> bool:
    named = any(rule.matches_name(destination.host, destination.port) for rule in secret.rules)
    return named and destination.over_tls
