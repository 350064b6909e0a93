"""What a server tells the host daemon that it starts. Light: the supervisor, which stays small, imports it too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from cove.server.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """Options of `python -m cove.hostd`.

    Attributes:
        isolation, max_sandboxes, allow_internal, nameservers, egress_log, egress_trust: as in the settings.
        ceilings: the most that the daemon gives a sandbox, whatever the server asks.
        keep_sandboxes: sandboxes run on when the daemon is told to end.
        ends_with_server: when the process that started it dies without a chance to end the daemon, the daemon ends by
            itself, and its sandboxes with it; otherwise it waits for the next server.
    """

    isolation: str
    max_sandboxes: int
    ceilings: Mapping[str, int] = field(default_factory=dict[str, int])
    allow_internal: Sequence[str] = ()
    nameservers: Sequence[str] = ()
    egress_log: str | None = None
    egress_trust: str | None = None
    keep_sandboxes: bool = False
    ends_with_server: bool = False

    @classmethod
    def of(cls, settings: "Settings", *, keep_sandboxes: bool = False, ends_with_server: bool = False) -> Self:
        """As the operator has set them."""
        return cls(
            isolation=str(settings.isolation),
            max_sandboxes=settings.max_sandboxes,
            ceilings=settings.host_ceilings,
            allow_internal=list(settings.allow_internal),
            nameservers=list(settings.nameservers),
            egress_log=settings.egress_log,
            egress_trust=settings.egress_trust,
            keep_sandboxes=keep_sandboxes,
            ends_with_server=ends_with_server,
        )

    def words(self) -> list[str]:
        """As arguments of the daemon; what `ends_with_server` takes, only the process that starts it can give."""
        return [
            *("--isolation", self.isolation, "--max-sandboxes", str(self.max_sandboxes)),
            *(["--keep-sandboxes"] if self.keep_sandboxes else []),
            *(word for rule in self.allow_internal for word in ("--allow-internal", rule)),
            *(word for address in self.nameservers for word in ("--nameserver", address)),
            *(["--egress-log", self.egress_log] if self.egress_log is not None else []),
            *(["--egress-trust", self.egress_trust] if self.egress_trust is not None else []),
            *(word for name, most in self.ceilings.items() for word in (f"--max-{name.replace('_', '-')}", str(most))),
        ]
