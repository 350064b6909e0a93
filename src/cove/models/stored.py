"""What the control plane remembers: the rows of its store, as plain values.

They never leave the server; the wire has its own models. Times are unix seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cove.models.async_executions import DeliveryState, ExecutionStatus
from cove.models.isolation import Isolation
from cove.models.limits import Limits
from cove.models.network import EgressPolicy
from cove.models.previews import PreviewAccess, PreviewTerms
from cove.models.quotas import UNLIMITED, Quota
from cove.models.sandboxes import EndReason, SandboxStatus
from cove.models.scopes import ALL_SCOPES, Scope
from cove.models.secrets import BoundSecret, SecretPlace
from cove.models.template_builds import BuildStatus
from cove.models.templates import derived_name

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSandbox:
    """One sandbox that should exist, or the tombstone of one that ended.

    Attributes:
        namespace: the tenant it belongs to; keys of other namespaces do not see it.
        timeout_seconds: what its deadline was computed from; None means that it has no deadline.
        deadline: when it is ended; None means never.
        ended_at: when it ended; set together with `end_reason` once `status` is deleted.
        end_limit: the limit that it ran into then, as results name them ("memory 512 MiB"); empty: none is known.
        lease_epoch: raised whenever another host takes it over, so that an old owner can be told apart.
        created_by: id of the API key that made it; empty for rows of earlier versions.
        organization_id: the number of its namespace, as clients see it.
        name: chosen by who made it, unique among those of namespace and client lease that have not ended.
        client_lease: of the client that it may not outlive; empty for one that may.
        unenforced: names of the limits that its host does not enforce.
        network: what it may reach; None without a network.
        preview_access, preview_epoch: see `PreviewTerms`.
        secrets: by the variables that hold their placeholders.
    """

    id: str
    namespace: str
    status: SandboxStatus
    template_id: str
    template_name: str
    template_digest: str
    isolation: Isolation
    limits: Limits
    internet_access: bool = False
    region: str | None = None
    timeout_seconds: int | None = None
    created_at: float
    deadline: float | None = None
    ended_at: float | None = None
    end_reason: EndReason | None = None
    end_limit: str = ""
    host_id: str = "local"
    lease_epoch: int = 1
    created_by: str = ""
    organization_id: int = 0
    name: str | None = None
    client_lease: str = ""
    unenforced: tuple[str, ...] = ()
    network: EgressPolicy | None = None
    preview_access: PreviewAccess | None = None
    preview_epoch: int = 0
    secrets: Mapping[str, BoundSecret] = field(default_factory=dict[str, BoundSecret])

    @property
    def preview_terms(self) -> PreviewTerms:
        """What holds for its previews."""
        return PreviewTerms(self.preview_access, self.preview_epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxQuery:
    """Which sandboxes a list shows, newest first.

    Attributes:
        status: only this one; None means every sandbox that has not ended.
        before: creation time and id of the last row of the page before.
        limit: at most this many rows.
        name: only the one with this name.
        client_lease: only those of this lease; None means those of every lease and of none.
    """

    namespace: str
    status: SandboxStatus | None = None
    name: str | None = None
    client_lease: str | None = None
    region: str | None = None
    before: tuple[float, str] | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBuild:
    """How far the build of a tenant's template is, or how it ended.

    Attributes:
        base: the template that it stands on.
        limits: of its sandboxes, where they ask for none.
        progress: percent.
        step: what is being done, or failed.
        error: why it failed.
    """

    base: str
    limits: dict[str, int]
    started_at: float
    progress: int = 0
    step: str | None = None
    completed_at: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTemplate:
    """A template under its stable decimal id: one with a recipe, that some host has built, or a tenant's own.

    Attributes:
        namespace: whose it is; empty: everybody's. Names are unique within it.
        status: of the last build.
        build: of a tenant's own.
    """

    id: int
    name: str
    display_name: str
    description: str
    languages: tuple[str, ...]
    digest: str
    created_at: float
    updated_at: float
    namespace: str = ""
    status: BuildStatus = BuildStatus.ACTIVE
    build: StoredBuild | None = None

    @property
    def host_name(self) -> str:
        """Under which name hosts keep it."""
        return derived_name(self.id) if self.namespace else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """An API key without its secret.

    Attributes:
        id: the public part (12 letters and digits) that finds the row.
        digest: hash of the whole key; the key itself is kept nowhere.
        namespace: `*` for a key of the operator, which may enter any.
        quota: what sandboxes made with this key may use together; the namespace's quota holds beside it.
        scopes: what it may do.
        prefix: what the key begins with, for people who look for it.
    """

    id: str
    name: str
    namespace: str
    digest: bytes
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    quota: Quota = UNLIMITED
    scopes: frozenset[Scope] = ALL_SCOPES
    prefix: str = "hopx_live_"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNamespace:
    """A tenant.

    Attributes:
        id: a number that never changes; clients call it the organization's.
        name: what keys and sandboxes name it by.
        display_name: chosen by the tenant, for people.
        quota: the operator's ceilings for it; those that are None are the server's defaults.
    """

    id: int
    name: str
    display_name: str
    created_at: float
    quota: Quota = UNLIMITED


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A secret that is kept for a namespace.

    Attributes:
        sealed: the value, unreadable without a key that is not in the store; another one after each change.
        hosts, places: what it may be used for.
    """

    namespace: str
    name: str
    sealed: bytes
    hosts: tuple[str, ...]
    places: tuple[SecretPlace, ...]
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCreate:
    """A create that carried an idempotency key, and what came of it.

    Attributes:
        scope: hash of namespace, API key and idempotency key.
        fingerprint: hash of what was asked for.
    """

    scope: bytes
    namespace: str
    fingerprint: bytes
    sandbox_id: str
    created_at: float


@dataclass(frozen=True, slots=True)
class StoredUsage:
    """What sandboxes used in a span of time: their limits multiplied with the hours that they existed."""

    vcpu_hours: float = 0.0
    memory_gb_hours: float = 0.0
    disk_gb_hours: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """Who did what, and when: an entry of the audit log. They are only ever added, and dropped when they are old.

    Attributes:
        namespace: whose log it is in; what belongs to no tenant is in the operator's, which is `default`.
        actor: id of an API key, or `system` for the server itself, `operator` for commands that open the store,
            `anonymous` for whoever showed no valid credential.
        action: for example `sandbox.created`.
        subject: id of the thing that was acted on.
        details: small JSON-compatible facts; never a secret.
        outcome: `ok`, or the code of the error that was answered.
        request_id: of the request that it happened in, if it was one.
        address: the client's, as the server saw it; empty for a unix socket.
        id: grows from entry to entry; None until it is stored.
    """

    at: float
    namespace: str
    actor: str
    action: str
    subject: str
    details: dict[str, Any] = field(default_factory=dict[str, Any])
    outcome: str = "ok"
    request_id: str = ""
    address: str = ""
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events a page shows, newest first.

    Attributes:
        namespace: whose; `*` means all.
        action: what actions begin with.
        sandbox_id: only what concerns this sandbox, as its subject or otherwise.
        since, until: only those that are not older, and older than that.
        before: only events with a smaller id.
        limit: at most this many.
    """

    namespace: str
    actor: str | None = None
    subject: str | None = None
    sandbox_id: str | None = None
    action: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None
    before: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class EventSlice:
    """Events that match a query, newest first, as far as it was looked.

    Attributes:
        before: where to go on looking; None when there is nothing further.
    """

    events: tuple[StoredEvent, ...]
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredExecution:
    """An asynchronous execution, without the large parts: program, callback and result are sealed and read apart.

    Attributes:
        started_at: when the sandbox was first asked to start it.
        next_attempt_at: when its webhook is due; None while it waits for the end, and once it is settled.
        deliver_until: when its webhook is given up.
        last_error: what came of the last attempt that failed.
        result_bytes: size of the result that is kept; 0 when there is none (any more).
    """

    id: str
    namespace: str
    sandbox_id: str
    status: ExecutionStatus
    delivery: DeliveryState
    language: str
    timeout_seconds: float
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    attempts: int = 0
    next_attempt_at: float | None = None
    deliver_until: float | None = None
    delivered_at: float | None = None
    last_error: str | None = None
    result_bytes: int = 0


class ExecutionPart(StrEnum):
    """A large, sealed part of an asynchronous execution."""

    PROGRAM = "program"
    CALLBACK = "callback"
    RESULT = "result"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionQuery:
    """Which asynchronous executions a list shows, newest first.

    Attributes:
        before: creation time and id of the last row of the page before.
        limit: at most this many rows.
        client_lease: only those of this lease's sandboxes; None means those of every lease and of none.
    """

    namespace: str
    client_lease: str | None = None
    sandbox_id: str | None = None
    before: tuple[float, str] | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEnd:
    """How a program ended, and until when its webhook is tried."""

    status: ExecutionStatus
    at: float
    exit_code: int
    result: bytes
    deliver_until: float
