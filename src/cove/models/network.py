"""What a sandbox may reach: the policy as it is asked for, stored and shown."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, cast

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from cove.models.base import Contract
from cove.models.egress_rules import EgressRule

MAX_RULES = 256


class NetworkPreset(StrEnum):
    """Policies with a name.

    `none`: nothing but loopback. `public`: the public internet. `package-registries`: where packages are downloaded
    from, as the operator has set it.
    """

    NONE = "none"
    PUBLIC = "public"
    PACKAGE_REGISTRIES = "package-registries"


def _rule(text: str) -> str:
    """In its one spelling."""
    return str(EgressRule.parse(text))


Rule = Annotated[str, AfterValidator(_rule)]


class NetworkPolicy(Contract):
    """Where a sandbox may connect to. Nothing else is reachable, and of what is allowed nothing that is denied.

    Addresses that are not public (private, link-local, metadata, the host's own, other sandboxes') are reachable only
    where the operator has opened them, whatever is allowed here.

    Attributes:
        preset: what the rules of `allow` are added to. Where it is not given it is `none`, except that `deny` alone,
            without `allow`, takes something away from `public`. An empty `allow` allows nothing.
        allow: rules (see `cove.models.egress_rules`); at most `MAX_RULES`.
        deny: rules that win over those of `allow`.
    """

    # A policy that is misunderstood lets something out: what is not known is refused here, not ignored.
    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: NetworkPreset | None = None
    allow: tuple[Rule, ...] = Field(default=(), max_length=MAX_RULES)
    deny: tuple[Rule, ...] = Field(default=(), max_length=MAX_RULES)

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: object) -> object:
        # Said here, so that what is passed on means the same: there, `allow` would always be given.
        if not isinstance(given, dict):
            return given
        fields = cast("dict[str, object]", given)
        if fields.get("preset") is not None:
            return fields
        public = fields.get("allow") is None and fields.get("deny")
        return {**fields, "preset": NetworkPreset.PUBLIC if public else NetworkPreset.NONE}

    def in_force(self, *, registries: Callable[[], tuple[str, ...]], internal: tuple[str, ...] = ()) -> "EgressPolicy":
        """What it comes to on a server: presets replaced by their rules.

        Args:
            registries: answers the rules that `package-registries` stands for; asked only for that preset.
            internal: what the operator has opened of the addresses that are not public.
        """
        preset: tuple[str, ...] = ()
        if self.preset is NetworkPreset.PUBLIC:
            preset = ("*",)
        elif self.preset is NetworkPreset.PACKAGE_REGISTRIES:
            preset = registries()
        return EgressPolicy(allow=preset + self.allow, deny=self.deny, internal=internal)


class EgressPolicy(Contract):
    """A policy as a host enforces it: rules only.

    Attributes:
        allow, deny: as in `NetworkPolicy`.
        internal: names and networks that may be reached although their addresses are not public; where `allow` allows
            it too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    internal: tuple[Rule, ...] = ()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be reached at all, so that the sandbox needs no network."""
        return not self.allow

    @property
    def is_public(self) -> bool:
        """Whether every public host is allowed, but for those that are denied."""
        return "*" in self.allow


class EnforcedPolicy(EgressPolicy):
    """All that the egress program is told of one sandbox.

    Attributes:
        network_mbps: as in `Limits`.
    """

    network_mbps: int | None = Field(default=None, ge=1)


NO_NETWORK = NetworkPolicy(preset=NetworkPreset.NONE)
PUBLIC_INTERNET = NetworkPolicy(preset=NetworkPreset.PUBLIC)


class RefusalCause(StrEnum):
    """Why something did not come about, roughly; the reason says it in words.

    `policy`: it is not allowed. `secret`: a secret was about to go where it may not. `request`: it cannot be read.
    `host`: the place outside is nowhere, does not answer or is not what it claims to be. `cut`: it was allowed, until
    the policy was changed or the sandbox ended.
    """

    POLICY = "policy"
    SECRET = "secret"  # noqa: S105 (a word for people)
    REQUEST = "request"
    HOST = "host"
    CUT = "cut"


class EgressEntry(Contract):
    """One connection that has ended or was refused, or one look-up.

    Attributes:
        sequence: counts up, from 1.
        time: unix seconds.
        kind: `tcp`, `tls`, `http` or `dns`.
        name: the host, where it is known.
        address: of the place; empty for a look-up.
        allowed: whether it came about; `reason` and `cause` say why not.
        sent_packets, received_packets: TCP segments between the sandbox and what carries them on (tcp(7), TCP_INFO).
        seconds: how long it lasted.
    """

    sequence: int
    time: float
    kind: str
    name: str = ""
    address: str = ""
    port: int = 0
    allowed: bool
    reason: str = ""
    cause: RefusalCause | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    received_packets: int = 0
    seconds: float = 0.0


class EgressTotals(Contract):
    """Since the sandbox has its network.

    Attributes:
        sent_bytes, received_bytes: of connections, without their packets' heads.
        sent_packets, received_packets: of connections that have ended; see `EgressEntry`.
        refused: connections and look-ups that did not come about; `refusals` says how many for which cause.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    received_packets: int = 0
    open_connections: int = 0
    connections: int = 0
    lookups: int = 0
    refused: int = 0
    refusals: dict[RefusalCause, int] = {}

    def plus(self, other: "EgressTotals") -> "EgressTotals":
        """Of both together."""
        mine, more = dict(self), dict(other)
        refusals = {
            cause: self.refusals.get(cause, 0) + other.refusals.get(cause, 0)
            for cause in RefusalCause
            if cause in self.refusals or cause in other.refusals
        }
        sums = {name: mine[name] + more[name] for name in mine if name != "refusals"}
        return EgressTotals(**sums, refusals=refusals)


class NetworkReport(Contract):
    """What a sandbox did on the network.

    Attributes:
        policy: in force; None without a network.
        entries: the latest, oldest first.
        forgotten: entries that came before those and are not kept any more.
    """

    policy: EgressPolicy | None = None
    totals: EgressTotals = EgressTotals()
    entries: tuple[EgressEntry, ...] = ()
    forgotten: int = 0

    def latest(self, most: int) -> "NetworkReport":
        """With the latest `most` entries only."""
        dropped = max(0, len(self.entries) - most)
        return self.model_copy(update={"entries": self.entries[dropped:], "forgotten": self.forgotten + dropped})


class SandboxNetwork(NetworkReport):
    """Answer to `GET` and `PUT /v1/sandboxes/{id}/network`."""

    id: str
    request_id: str | None = None
