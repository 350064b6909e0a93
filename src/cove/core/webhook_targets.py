"""Where webhooks may go. The URLs come from tenants, and it is the server that connects: without this, anyone with a
sandbox could have it knock at its own network (server-side request forgery).

A name is resolved once, here, and the connection goes to the very addresses that were looked at: a name that resolves
differently a moment later (DNS rebinding) gains nothing. This is repeated before every attempt.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Protocol, Self
from urllib.parse import urlsplit

from cove.models.addresses import IpAddress, IpNetwork, embedded, literal, why_not_public
from cove.models.errors import CoveError, error

ALLOW_SETTING = "COVE_WEBHOOK_ALLOW"

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[\x21-\x7e]+\Z")
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?)*\Z"
)
_MAX_ADDRESSES = 32


class Resolver(Protocol):
    """Looks host names up."""

    async def resolve(self, host: str, *, owner: str) -> tuple[str, ...]:
        """All addresses of a name, bounded in time. Lookups of one `owner` do not hold up those of others.

        Raises:
            CoveError: INVALID_REQUEST when there is no such name, NETWORK_ERROR when that is not known now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook's URL, taken apart.

    Attributes:
        host: lower case, without brackets and final dot.
        authority: for the `Host` header.
        path: with the query, never empty.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and, where it is not the scheme's own, port (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts and networks that are let through although they are not public.

    Attributes:
        names: whatever these resolve to is allowed.
        networks: addresses in these are allowed, whatever name leads there.
    """

    names: frozenset[str] = frozenset()
    networks: tuple[IpNetwork, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Self:
        """From the setting: host names, addresses, networks as `10.1.0.0/16`.

        Raises:
            ValueError: an entry is none of these.
        """
        names: set[str] = set()
        networks: list[IpNetwork] = []
        for entry in entries:
            text = entry.strip().lower().removesuffix(".")
            if ":" in text or "/" in text or text.rpartition(".")[2].isdigit():
                networks.append(ip_network(text))
            elif _HOST_NAME.match(text):
                names.add(text)
            else:
                raise ValueError(f"{entry[:80]!r} is neither a host name nor an address nor a network")
        return cls(frozenset(names), tuple(networks))

    def holds(self, address: IpAddress) -> bool:
        """Whether one of the networks does; an embedded IPv4 address counts as itself."""
        return any(one in network for one in (address, embedded(address)) for network in self.networks)


class WebhookTargets:
    """Decides where webhooks may go."""

    def __init__(self, resolver: Resolver, allow: AllowList) -> None:
        self._resolver = resolver
        self._allow = allow

    async def admit(self, url: str, *, owner: str) -> None:
        """Refuse a URL to which nothing will be sent. A name that cannot be looked up just now passes: it is looked up
        again for each attempt.

        Raises:
            CoveError: INVALID_REQUEST, which says why.
        """
        try:
            await self.locate(parse(url), owner=owner)
        except CoveError as failure:
            if failure.code != "NETWORK_ERROR":
                raise

    async def locate(self, target: Target, *, owner: str) -> tuple[IpAddress, ...]:
        """The addresses to connect to: all of the host's, each of them allowed.

        Raises:
            CoveError: INVALID_REQUEST when one of them is not, or there is no such name; NETWORK_ERROR when the name
                cannot be looked up now.
        """
        address = literal(target.host)
        found = (address,) if address else await self._addresses(target.host, owner)
        for one in found:
            kind = why_not_public(one)
            if kind is not None and target.host not in self._allow.names and not self._allow.holds(one):
                raise _refused(
                    f"{target.host} is {kind}" if address else f"{target.host} leads to an address that is {kind}",
                    remedy=f"Use a public address, or have the operator allow this one ({ALLOW_SETTING}).",
                )
        return found

    async def _addresses(self, host: str, owner: str) -> tuple[IpAddress, ...]:
        texts = await self._resolver.resolve(host, owner=owner)
        if not texts:
            raise _refused(f"{host} has no address")
        return tuple(ip_address(text) for text in texts[:_MAX_ADDRESSES])


def parse(url: str) -> Target:
    """Take a URL apart, strictly: what two programs could understand in different ways is refused.

    Raises:
        CoveError: INVALID_REQUEST.
    """
    if not _PRINTABLE.match(url) or "\\" in url:
        raise _refused(
            "it holds a space, a backslash, a control character or a character outside ASCII",
            remedy="Percent-encode the path (RFC 3986), and write an international host name as xn--... (RFC 5890).",
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("its host or port cannot be read") from None
    if parts.scheme not in _PORTS or not url[len(parts.scheme) :].startswith("://"):
        raise _refused("it does not begin with http:// or https://")
    if "@" in parts.netloc:
        raise _refused("it holds a user name or password", remedy="Send credentials in callback_headers.")
    if port == 0:
        raise _refused("port 0 cannot be connected to")
    query = f"?{parts.query}" if parts.query else ""
    return Target(
        parts.scheme, _host(parts.hostname or ""), port or _PORTS[parts.scheme], f"{parts.path or '/'}{query}"
    )


def _host(host: str) -> str:
    host = host.lower().removesuffix(".")
    try:
        address = literal(host)
    except ValueError:
        raise _refused(
            f"{host[:80]!r} is not an address in its usual form", remedy="Write it as 192.0.2.1 or [2001:db8::1]."
        ) from None
    if address is not None:
        return str(address)
    if not _HOST_NAME.match(host):
        raise _refused(f"{host[:80]!r} is not a host name")
    return host


def _refused(reason: str, *, remedy: str = "") -> CoveError:
    return error(
        "INVALID_REQUEST", f"callback_url: nothing can be sent there: {reason}.", remedy=remedy, field="callback_url"
    )
