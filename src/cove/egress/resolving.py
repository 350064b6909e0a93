"""Looking names up outside, for all sandboxes together."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from cove.egress.asking import BadAnswer, ask
from cove.egress.name_servers import NameServers
from cove.models.addresses import IpAddress

LOOKUP_SECONDS: Final = 5.0
_LONGEST_KEPT: Final = 300.0
_LONGEST_KEPT_NOTHING: Final = 60.0
"""Seconds. Times to live are the wish of whoever has the name; what was wrong for a moment is not wrong for years."""
_KEPT_BYTES: Final = 16 * 1024 * 1024
_WEIGHT_OF_ONE, _WEIGHT_OF_RECORD = 1024, 256

Question = tuple[str, dns.rdatatype.RdataType]


class LookupFailed(Exception):
    """It is not known now where the name leads."""


class NoSuchName(Exception):
    """There is no such name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a look-up.

    Attributes:
        records: of the kind that was asked for; None when there are none.
        failure: why it is not known, in words.
        seconds: for which it may be kept.
    """

    records: dns.rrset.RRset | None = None
    exists: bool = True
    failure: str = ""
    seconds: float = 0.0

    @property
    def weight(self) -> int:
        """About the bytes that it takes."""
        texts = map(str, self.records or ())  # pyright: ignore[reportUnknownArgumentType]
        return _WEIGHT_OF_ONE + sum(_WEIGHT_OF_RECORD + len(text) for text in texts)


class Upstream:
    """The name servers that this machine uses, or those that the operator named; answers are kept for their time to
    live.
    """

    def __init__(
        self,
        nameservers: tuple[str, ...] = (),
        *,
        seconds: float = LOOKUP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            nameservers: addresses, with a port as `192.0.2.1:5353`; empty: those of resolv.conf(5).
            seconds: a look-up may take.
        """
        self._servers = NameServers(nameservers)
        self._seconds = seconds
        self._kept = KeptAnswers(clock)
        self._under_way: dict[Question, asyncio.Task[Answer]] = {}

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
        """The records of one kind, aliases followed; None when the name has none. They are not to be changed.

        Args:
            name: in its one spelling (`cove.models.host_names`).

        Raises:
            NoSuchName, LookupFailed.
        """
        answer = self._kept.get((name, kind)) or await asyncio.shield(self._looked_up((name, kind)))
        if answer.failure:
            raise LookupFailed(f"{name} could not be looked up: {answer.failure}")
        if not answer.exists:
            raise NoSuchName(name)
        return answer.records

    def _looked_up(self, question: Question) -> asyncio.Task[Answer]:
        """The same question is asked once at a time: each more would be one more that a guessed answer fits."""
        task = self._under_way.get(question)
        if task is None:
            task = self._under_way[question] = asyncio.create_task(self._look_up(question))
            task.add_done_callback(lambda _: self._under_way.pop(question))
        return task

    async def _look_up(self, question: Question) -> Answer:
        reason = "no name server answers"
        servers = self._servers.in_order()
        try:
            async with asyncio.timeout(self._seconds):
                while servers:
                    for server in tuple(servers):
                        try:
                            async with asyncio.timeout(0.4 * self._seconds):
                                answer = await _ask(server, question)
                        except TimeoutError:
                            self._servers.avoid(server)
                            continue
                        except BadAnswer as problem:
                            reason = str(problem)
                        except OSError as problem:
                            reason = f"a name server is not reachable: {problem.strerror}"
                        else:
                            self._kept.put(question, answer)
                            return answer
                        servers.remove(server)
        except TimeoutError:
            pass
        return Answer(failure=reason)


async def _ask(server: tuple[str, int], question: Question) -> Answer:
    name, kind = question
    return answer_in(await ask(server, dns.name.from_text(name, dns.name.root), kind))


def answer_in(message: dns.message.QueryMessage) -> Answer:
    """What a name server's message says about its question, and nothing else of it.

    Raises:
        BadAnswer: nothing.
    """
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise BadAnswer(f"a name server has answered {dns.rcode.to_text(message.rcode())}")
    try:
        chain = message.resolve_chaining()
    except dns.exception.DNSException:
        raise BadAnswer("a name server's answer contradicts itself") from None
    longest = _LONGEST_KEPT if chain.answer else _LONGEST_KEPT_NOTHING
    exists = message.rcode() == dns.rcode.NOERROR
    return Answer(chain.answer, exists=exists, seconds=min(float(chain.minimum_ttl), longest))


class KeptAnswers:
    """Bounded in bytes; the longest unused goes first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, most_weight: int = _KEPT_BYTES) -> None:
        self._clock = clock
        self._most_weight = most_weight
        self._weight = 0
        self._answers: OrderedDict[Question, tuple[float, Answer]] = OrderedDict()

    def get(self, question: Question) -> Answer | None:
        """What is known still."""
        until, answer = self._answers.get(question, (0.0, None))
        if answer is None:
            return None
        if until <= self._clock():
            self._forget(question)
            return None
        self._answers.move_to_end(question)
        return answer

    def put(self, question: Question, answer: Answer) -> None:
        """Keep it for its time."""
        if answer.seconds <= 0:
            return
        self._forget(question)
        self._answers[question] = (self._clock() + answer.seconds, answer)
        self._weight += answer.weight
        while self._weight > self._most_weight:
            self._forget(next(iter(self._answers)))

    def _forget(self, question: Question) -> None:
        _, answer = self._answers.pop(question, (0.0, None))
        if answer is not None:
            self._weight -= answer.weight


def addresses_in(records: dns.rrset.RRset) -> list[IpAddress]:
    """Those of A and AAAA records; not IPv4 addresses in IPv6 form (RFC 4291 §2.5.5.2), which are none of a host's."""
    found = [ip_address(text) for text in map(str, records)]  # pyright: ignore[reportUnknownArgumentType]
    return [address for address in found if not isinstance(address, IPv6Address) or address.ipv4_mapped is None]
