"""The grammar of egress rules: which places on the network a rule means.

| written | means |
|---|---|
| `api.example.com` | this host, ports 80 and 443 |
| `*.example.com` | every host below it, but not itself |
| `api.example.com:8443` | this host on this port only; `:8000-8010` for a range |
| `192.0.2.0/24`, `192.0.2.7:5432`, `[2001:db8::]/32`, `[2001:db8::1]:53` | these addresses; all ports, or those named |
| `*`, `*:25` | every public host; all ports, or those named |
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Self

from cove.models.addresses import IpAddress, IpNetwork, embedded
from cove.models.host_names import canonical_host, canonical_name

WEB_PORTS = ((80, 80), (443, 443))
ALL_PORTS = ((1, 65535),)
MAX_RULE_CHARACTERS = 300

_PORTS = re.compile(r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?\Z")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](/[0-9]{1,3})?(?::(.*))?\Z")
_NEEDS_LABELS = 2

PortRanges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class EgressRule:
    """One rule, taken apart. Exactly one of `name` and `network` is set, or neither: every host.

    Attributes:
        name: in its one spelling.
        below: the rule means the hosts below `name` instead of `name`.
        ports: first and last of each range, both included.
        named_ports: whether the rule itself names ports.
    """

    name: str | None = None
    below: bool = False
    network: IpNetwork | None = None
    ports: PortRanges = ALL_PORTS
    named_ports: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rule as it is written.

        Raises:
            ValueError: saying what is wrong with it.
        """
        if len(text) > MAX_RULE_CHARACTERS:
            raise ValueError(f"a rule has at most {MAX_RULE_CHARACTERS} characters")
        if not text.isprintable() or " " in text or not text:
            raise ValueError(f"{text[:80]!r} is empty, or holds spaces or control characters")
        for sign, what in (("://", "a URL: leave the scheme out"), ("@", "a user name"), ("%", "an escape or a zone")):
            if sign in text:
                raise ValueError(f"{text!r} holds {what}")
        bracketed = _BRACKETED.match(text)
        if bracketed:
            address, length, ports = bracketed.groups()
            return cls._of_network(address + (length or ""), ports)
        if text.count(":") > 1:
            return cls._of_network(text, None)
        place, colon, ports = text.partition(":")
        return cls._of_place(place, ports if colon else None)

    def matches_name(self, name: str, port: int) -> bool:
        """Whether the rule means the host `name` (in its one spelling) on `port`."""
        if self.network is not None or not self.has_port(port):
            return False
        if self.name is None:
            return True
        return name.endswith("." + self.name) if self.below else name == self.name

    def matches_address(self, address: IpAddress, port: int) -> bool:
        """Whether the rule means `address` on `port` without any name; an embedded IPv4 address counts as itself."""
        if self.name is not None or not self.has_port(port):
            return False
        return self.network is None or any(one in self.network for one in (address, embedded(address)))

    def covers(self, other: Self) -> bool:
        """Whether all that `other` means is meant by this rule too."""
        if not all(any(first <= low and high <= last for first, last in self.ports) for low, high in other.ports):
            return False
        if self.network is not None:
            return other.network is not None and _within(other.network, self.network)
        if self.name is None:
            return True
        if other.name is None:
            return False
        return (self.name, self.below) == (other.name, other.below) or (
            self.below and other.name.endswith("." + self.name)
        )

    def __str__(self) -> str:
        place = ("*." if self.below else "") + self.name if self.name else str(self.network or "*")
        if isinstance(self.network, IPv6Network) and self.named_ports:
            place = f"[{self.network.network_address}]/{self.network.prefixlen}"
        ports = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self.ports)
        return f"{place}:{ports}" if self.named_ports else place

    def has_port(self, port: int) -> bool:
        """Whether the rule is about `port`."""
        return any(first <= port <= last for first, last in self.ports)

    @classmethod
    def _of_place(cls, place: str, ports: str | None) -> Self:
        if place == "*":
            return cls(ports=_ports(ports) or ALL_PORTS, named_ports=ports is not None)
        if "/" in place:
            return cls._of_network(place, ports)
        if place.startswith("*."):
            name = canonical_name(place[2:])
            if name.count(".") + 1 < _NEEDS_LABELS:
                raise ValueError(f"{place!r} is too wide: name at least a domain, as *.example.com")
            return cls(name=name, below=True, ports=_ports(ports) or WEB_PORTS, named_ports=ports is not None)
        if "*" in place:
            raise ValueError(f"{place!r}: * stands for whole labels, at the beginning only, as *.example.com")
        host = canonical_host(place)
        if isinstance(host, str):
            return cls(name=host, ports=_ports(ports) or WEB_PORTS, named_ports=ports is not None)
        return cls._of_network(str(host), ports)

    @classmethod
    def _of_network(cls, text: str, ports: str | None) -> Self:
        try:
            network: IPv4Network | IPv6Network = ip_network(text)
        except ValueError as problem:
            raise ValueError(f"{text!r} is not a network in its usual form, as 192.0.2.0/24: {problem}") from None
        return cls(network=network, ports=_ports(ports) or ALL_PORTS, named_ports=ports is not None)


def _within(network: IpNetwork, wider: IpNetwork) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(wider, IPv4Network) and network.subnet_of(wider)
    return isinstance(wider, IPv6Network) and network.subnet_of(wider)


def _ports(text: str | None) -> PortRanges | None:
    """None when no ports are named.

    Raises:
        ValueError: these are no ports.
    """
    if text is None:
        return None
    ranges: list[tuple[int, int]] = []
    for part in text.split(","):
        match = _PORTS.match(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise ValueError(f"{text!r} are no ports: write 443, 8000-8010 or 80,443")
        ranges.append((first, last))
    return tuple(ranges)
