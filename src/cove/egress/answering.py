"""Answering a sandbox's DNS questions, within its policy (RFC 1035)."""

import struct
from typing import Final

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from cove.egress.journal import Journal
from cove.egress.names_seen import NamesSeen
from cove.egress.policy import Policy
from cove.egress.refusals import Refused
from cove.egress.resolving import LookupFailed, NoSuchName, Upstream, addresses_in
from cove.egress.secrets import NO_SECRETS
from cove.models.host_names import canonical_name
from cove.models.network import RefusalCause

LONGEST_QUESTION: Final = 1232
"""One name, and what EDNS adds (RFC 6891), padding included (RFC 8467)."""
_MOST_ADDITIONAL: Final = 2
"""OPT, and a signature (RFC 8945)."""
_LONGEST_TTL: Final = 300
_ADDRESS_KINDS: Final = (dns.rdatatype.A, dns.rdatatype.AAAA)
_PASSED_KINDS: Final = (
    *(dns.rdatatype.CNAME, dns.rdatatype.MX, dns.rdatatype.TXT, dns.rdatatype.SRV),
    *(dns.rdatatype.NS, dns.rdatatype.SOA, dns.rdatatype.CAA),
)
"""Beside addresses. Not HTTPS and SVCB: they carry the keys that hide a server name (RFC 9849)."""


class Answerer:
    """For one sandbox.

    Attributes:
        secrets: whose placeholders are no names.
    """

    def __init__(self, upstream: Upstream, names: NamesSeen, journal: Journal) -> None:
        self._upstream = upstream
        self._names = names
        self._journal = journal
        self.secrets = NO_SECRETS

    async def answer(self, question: bytes, policy: Policy, *, size: int | None) -> bytes | None:
        """The answer to a message; None when it deserves none.

        Args:
            size: of the longest datagram that arrives in one piece; what fits neither there nor with the asker is
                marked as cut (RFC 2181 §9). None for a stream.
        """
        if not _is_plain(question):
            return None
        try:
            query = dns.message.from_wire(question)
        except (dns.exception.DNSException, ValueError):
            return None
        if query.flags & dns.flags.QR or query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            return None
        self._journal.lookups += 1
        response = await self._respond(query, policy)
        response.flags |= dns.flags.RA
        if size is None:
            return response.to_wire()
        try:
            return response.to_wire(max_size=max(512, min(size, query.payload if query.edns >= 0 else 512)))
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    async def _respond(self, query: dns.message.Message, policy: Policy) -> dns.message.Message:
        asked = query.question[0]
        try:
            name = canonical_name(asked.name.to_text(omit_final_dot=True))
        except ValueError as problem:
            return self._refuse(query, asked.name.to_text()[:255], str(problem))
        if asked.rdclass != dns.rdataclass.IN:
            return self._refuse(query, name, "only questions of class IN are answered")
        try:
            self.secrets.forbid(name.encode(), "a name that is looked up")
        except Refused as problem:
            return self._refuse(query, name, str(problem))
        verdict = policy.on_lookup(name)
        if verdict.refusal is not None:
            return self._refuse(query, name, verdict.refusal)
        response = dns.message.make_response(query)
        try:
            records = await self._records(name, asked.rdtype)
        except NoSuchName:
            response.set_rcode(dns.rcode.NXDOMAIN)
            self._note(name, asked.rdtype, None)
            return response
        except LookupFailed as problem:
            response.set_rcode(dns.rcode.SERVFAIL)
            self._note(name, asked.rdtype, str(problem), cause=RefusalCause.HOST)
            return response
        refusal = self._add(response, name, records, policy) if records else None
        if refusal is not None:
            return self._refuse(query, name, refusal)
        self._note(name, asked.rdtype, None)
        return response

    async def _records(self, name: str, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        if kind not in _ADDRESS_KINDS and kind not in _PASSED_KINDS:
            return None
        return await self._upstream.records(name, kind)

    def _add(self, response: dns.message.Message, name: str, records: dns.rrset.RRset, policy: Policy) -> str | None:
        """Put what may be known into the response; why not, if nothing may."""
        owner = response.question[0].name
        ttl = min(records.ttl, _LONGEST_TTL)
        if records.rdtype not in _ADDRESS_KINDS:
            response.answer.append(dns.rrset.from_rdata_list(owner, ttl, list(records)))
            return None
        addresses = addresses_in(records)
        passed = [address for address in addresses if policy.on_resolved(name, address).allowed]
        if not passed:
            return policy.on_resolved(name, addresses[0]).refusal if addresses else None
        self._names.remember(name, passed)
        kind = dns.rdatatype.to_text(records.rdtype)
        response.answer.append(dns.rrset.from_text_list(owner, ttl, "IN", kind, [str(one) for one in passed]))
        return None

    def _refuse(self, query: dns.message.Message, name: str, reason: str) -> dns.message.Message:
        """There is no such name, as far as the sandbox goes: that is the answer on which programs give up at once."""
        self._note(name, query.question[0].rdtype, reason)
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NXDOMAIN)
        if query.edns >= 0:
            response.use_edns(0, 0, query.payload, options=[dns.edns.EDEOption(dns.edns.EDECode.BLOCKED, reason[:200])])
        return response

    def _note(
        self,
        name: str,
        kind: dns.rdatatype.RdataType,
        refusal: str | None,
        *,
        cause: RefusalCause = RefusalCause.POLICY,
    ) -> None:
        self._journal.add("dns", dns.rdatatype.to_text(kind), name=name, refusal=refusal, cause=cause)


def _is_plain(message: bytes) -> bool:
    """Whether it has the shape of a question: told from its head (RFC 1035 §4.1.1), because taking a long message apart
    holds everybody up.
    """
    if not 12 < len(message) <= LONGEST_QUESTION:
        return False
    _, _, questions, answers, authorities, additional = struct.unpack_from("!6H", message)
    return questions == 1 and not answers and not authorities and additional <= _MOST_ADDITIONAL
