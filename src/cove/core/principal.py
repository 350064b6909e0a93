"""On whose behalf something happens."""

from dataclasses import dataclass, field
from typing import Any

from cove.models.quotas import UNLIMITED, Quota
from cove.models.scopes import ALL_SCOPES, EVERY_NAMESPACE, Scope
from cove.models.stored import DEFAULT_NAMESPACE, StoredEvent, StoredSandbox

SYSTEM_ACTOR = "system"
"""The server itself."""

OPERATOR_ACTOR = "operator"
"""Whoever may open the store, and does: commands on the server's machine."""

ANONYMOUS_ACTOR = "anonymous"
"""Whoever showed no valid credential."""

UNNAMED_ACTOR = "unnamed"
"""Whoever holds a sandbox's token of an earlier version, which does not say whom it was made for."""

FIRST_ORGANIZATION = 1
"""Number of the namespace `default`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that something happens in.

    Attributes:
        address: the client's, as the gateway saw it; empty for a unix socket.
    """

    request_id: str = ""
    address: str = ""


NO_REQUEST = Origin()


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever sent a request, once the request is authenticated.

    Attributes:
        namespace: the tenant whose things it sees; others do not exist for it. `*` is all, and only to look.
        actor: for the record of events: the id of an API key.
        organization_id: number of the namespace.
        namespace_quota: what the operator set for the namespace; the server's defaults fill its gaps.
        key_quota: what the operator set for this key, which holds beside that.
        expires_at: when the key ends, and with it all that it made for itself; None means never.
        scopes: what it may do.
        enters_any_namespace: whether `X-Cove-Namespace` may name another namespace than its own.
        client_lease: when set, it sees only sandboxes of this lease, and they end with the lease.
        counted: the server asks itself, for a request that was counted when it came: of these requests only creates
            count.
        origin: the request that it speaks in.
    """

    namespace: str
    actor: str
    organization_id: int = field(default=0, compare=False)
    namespace_quota: Quota = field(default=UNLIMITED, compare=False)
    key_quota: Quota = field(default=UNLIMITED, compare=False)
    expires_at: float | None = field(default=None, compare=False)
    scopes: frozenset[Scope] = field(default=ALL_SCOPES, compare=False)
    enters_any_namespace: bool = field(default=False, compare=False)
    client_lease: str = ""
    counted: bool = field(default=False, compare=False)
    origin: Origin = field(default=NO_REQUEST, compare=False)

    def sees(self, sandbox: StoredSandbox) -> bool:
        """Whether the sandbox exists for it. Whoever holds no lease sees those of all leases of the namespace."""
        return self.namespace in (sandbox.namespace, EVERY_NAMESPACE) and self.client_lease in (
            sandbox.client_lease,
            "",
        )

    def event(
        self, action: str, subject: str, *, at: float, details: dict[str, Any] | None = None, outcome: str = "ok"
    ) -> StoredEvent:
        """The entry of the audit log for what it does to something of its namespace."""
        return StoredEvent(
            at=at,
            namespace=self.namespace,
            actor=self.actor,
            action=action,
            subject=subject,
            details=details or {},
            outcome=outcome,
            request_id=self.origin.request_id,
            address=self.origin.address,
        )

    @property
    def is_operator(self) -> bool:
        """Whether it may see figures about the whole server: keys of the first namespace belong to who runs it."""
        return self.namespace == DEFAULT_NAMESPACE

    @property
    def is_confined(self) -> bool:
        """Whether its key has a quota of its own: it may then not touch other keys, or it could make itself one
        without."""
        return not self.key_quota.is_open


DEVELOPER = Principal(DEFAULT_NAMESPACE, "dev", FIRST_ORGANIZATION, enters_any_namespace=True)
"""Everyone, on a server that was started with `--dev`."""
