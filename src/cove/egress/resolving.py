"""Looking names up outside, for all sandboxes together."""

import asyncio
from ipaddress import ip_address
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
import dns.rrset

from cove.models.addresses import IpAddress
from cove.models.host_names import nameserver_place

LOOKUP_SECONDS: Final = 5.0
_CACHED_ANSWERS: Final = 10_000


class LookupFailed(Exception):
    """It is not known now where the name leads."""


class NoSuchName(Exception):
    """There is no such name."""


class Upstream:
    """The name servers that this machine uses, or those that the operator named; answers are kept for their time to
    live.
    """

    def __init__(self, nameservers: tuple[str, ...] = ()) -> None:
        """
        Args:
            nameservers: addresses, with a port as `192.0.2.1:5353`; empty: those of resolv.conf(5).
        """
        self._resolver = dns.asyncresolver.Resolver(configure=not nameservers)
        if nameservers:
            places = [nameserver_place(text) for text in nameservers]
            self._resolver.nameservers = [address for address, _ in places]
            self._resolver.nameserver_ports = dict(places)
        self._resolver.cache = dns.resolver.LRUCache(_CACHED_ANSWERS)
        self._resolver.lifetime = LOOKUP_SECONDS

    async def addresses(self, name: str) -> tuple[IpAddress, ...]:
        """Of both families, IPv4 first.

        Raises:
            NoSuchName, LookupFailed.
        """
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        found = await asyncio.gather(*(self.records(name, kind) for kind in kinds), return_exceptions=True)
        addresses: list[IpAddress] = []
        for answer in found:
            if isinstance(answer, dns.rrset.RRset):
                addresses += addresses_in(answer)
        if not addresses:
            for answer in found:
                if isinstance(answer, BaseException):
                    raise answer
        return tuple(addresses)

    async def records(self, name: str, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        """The records of one kind, aliases followed; None when the name has none.

        Raises:
            NoSuchName, LookupFailed.
        """
        try:
            answer = await self._resolver.resolve(name + ".", kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            raise NoSuchName(name) from None
        except (dns.exception.DNSException, OSError) as problem:
            raise LookupFailed(f"{name} could not be looked up: {type(problem).__name__}") from problem
        return answer.rrset


def addresses_in(records: dns.rrset.RRset) -> list[IpAddress]:
    """Those of A and AAAA records."""
    return [ip_address(text) for text in map(str, records)]  # pyright: ignore[reportUnknownArgumentType]
