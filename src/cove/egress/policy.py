"""Deciding whether a sandbox may connect to a place."""

from dataclasses import dataclass
from typing import Self

from cove.models.addresses import IpAddress, why_not_public
from cove.models.egress_rules import EgressRule
from cove.models.network import EgressPolicy

NOT_ALLOWED = "no rule allows it"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it may, and why not.

    Attributes:
        refusal: None when it may; otherwise the reason, in words for the program's author and the operator.
    """

    refusal: str | None = None

    @property
    def allowed(self) -> bool:
        """Whether it may connect."""
        return self.refusal is None


ALLOWED = Verdict()


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, taken apart for fast decisions."""

    allow: tuple[EgressRule, ...]
    deny: tuple[EgressRule, ...]
    internal: tuple[EgressRule, ...]

    @classmethod
    def of(cls, policy: EgressPolicy) -> Self:
        """From what the host was told; its rules are valid."""
        return cls(*(tuple(map(EgressRule.parse, rules)) for rules in (policy.allow, policy.deny, policy.internal)))

    @property
    def looks_at_names(self) -> bool:
        """Whether the host name of a connection can change the verdict; otherwise its address says all."""
        return any(rule.name is not None for rule in (*self.allow, *self.deny))

    @property
    def denies_names(self) -> bool:
        """Whether there are hosts that are denied by name."""
        return any(rule.name is not None for rule in self.deny)

    def a_name_may_open(self, port: int) -> bool:
        """Whether there is a host that may be connected to on `port`."""
        return any(rule.network is None and rule.has_port(port) for rule in self.allow)

    def on_lookup(self, name: str) -> Verdict:
        """Whether `name` (in its one spelling) may be looked up: on some port it may be connected to."""
        for rule in self.deny:
            if not rule.named_ports and _means(rule, name):
                return Verdict(f"the rule {rule} denies it")
        if any(_means(rule, name) for rule in self.allow):
            return ALLOWED
        return Verdict(NOT_ALLOWED)

    def on_name(self, name: str, port: int) -> Verdict:
        """Whether the host `name` may be connected to on `port`, as far as its name goes."""
        denied = next((rule for rule in self.deny if rule.matches_name(name, port)), None)
        if denied is not None:
            return Verdict(f"the rule {denied} denies it")
        if any(rule.matches_name(name, port) for rule in self.allow):
            return ALLOWED
        return Verdict(NOT_ALLOWED)

    def on_address(self, address: IpAddress, port: int) -> Verdict:
        """Whether `address` may be connected to without a name."""
        denied = next((rule for rule in self.deny if rule.matches_address(address, port)), None)
        if denied is not None:
            return Verdict(f"the rule {denied} denies it")
        if any(rule.matches_address(address, port) for rule in self.allow):
            return self.on_floor(address, port)
        return Verdict(NOT_ALLOWED)

    def on_answer(self, name: str, address: IpAddress, port: int) -> Verdict:
        """Whether the host `name`, which is allowed, may be reached at `address`: where the name leads is not for
        whoever owns the name to decide.
        """
        denied = next((rule for rule in self.deny if rule.network and rule.matches_address(address, port)), None)
        if denied is not None:
            return Verdict(f"the rule {denied} denies the address that {name} leads to")
        if any(rule.matches_name(name, port) for rule in self.internal if rule.name):
            return ALLOWED
        return self.on_floor(address, port)

    def on_resolved(self, name: str, address: IpAddress) -> Verdict:
        """Whether the sandbox may learn that `name`, which it may look up, leads to `address`: on some port it may
        connect there.
        """
        denied = next((rule for rule in self.deny if not rule.named_ports and rule.matches_address(address, 1)), None)
        if denied is not None and denied.network is not None:
            return Verdict(f"the rule {denied} denies the address that {name} leads to")
        kind = why_not_public(address)
        if kind is None or any(_means(rule, name) for rule in self.internal if rule.name):
            return ALLOWED
        if any(rule.network and rule.matches_address(address, rule.ports[0][0]) for rule in self.internal):
            return ALLOWED
        return Verdict(f"{name} leads to an address that is {kind}")

    def on_floor(self, address: IpAddress, port: int) -> Verdict:
        """Addresses that are not public need the operator's word, whatever the policy says."""
        kind = why_not_public(address)
        if kind is None or any(rule.network and rule.matches_address(address, port) for rule in self.internal):
            return ALLOWED
        return Verdict(f"its address is {kind}")


def _means(rule: EgressRule, name: str) -> bool:
    return any(rule.matches_name(name, first) for first, _ in rule.ports)
