"""The storage seam: repositories inside a unit of work. `core` knows these Protocols, `store` implements them.

Every change of a sandbox's state is a compare-and-set: it names the states that it starts from, and says by
returning None that the row was in another one. Implementations raise `CoveError` (STORE_UNAVAILABLE, DISK_FULL).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from cove.models.async_executions import DeliveryState, ExecutionStatus
from cove.models.network import EgressPolicy
from cove.models.previews import PreviewTerms
from cove.models.quotas import Quota
from cove.models.sandboxes import EndReason, SandboxStatus
from cove.models.secrets import BoundSecret
from cove.models.stored import (
    EventQuery,
    EventSlice,
    ExecutionEnd,
    ExecutionPart,
    ExecutionQuery,
    SandboxQuery,
    StoredBuild,
    StoredCreate,
    StoredEvent,
    StoredExecution,
    StoredKey,
    StoredNamespace,
    StoredSandbox,
    StoredSecret,
    StoredTemplate,
    StoredUsage,
)
from cove.models.template_builds import BuildStatus
from cove.models.templates import TemplateManifest

T = TypeVar("T")


class SandboxRepository(Protocol):
    """Sandboxes that should exist, and tombstones of those that ended."""

    def add(self, sandbox: StoredSandbox) -> None:
        """Insert a row; CONFLICT when the id is taken, or its name by a live one of the same namespace and lease."""
        ...

    def holder(self, name: str, namespace: str, client_lease: str) -> str | None:
        """The id of the live sandbox that has this name there."""
        ...

    def get(self, sandbox_id: str) -> StoredSandbox | None:
        """The row, tombstones included."""
        ...

    def page(self, query: SandboxQuery) -> tuple[StoredSandbox, ...]:
        """Rows that match, newest first."""
        ...

    def live(self) -> tuple[StoredSandbox, ...]:
        """Every row that has not ended, of all namespaces."""
        ...

    def count_by_status(self) -> Mapping[SandboxStatus, int]:
        """How many rows there are in each state that is not an end state."""
        ...

    def transition(
        self, sandbox_id: str, *, sources: frozenset[SandboxStatus], target: SandboxStatus
    ) -> StoredSandbox | None:
        """Move to `target` if the row is in one of `sources`; the row after the change, or None."""
        ...

    def end(
        self,
        sandbox_id: str,
        *,
        reason: EndReason,
        at: float,
        limit: str = "",
        due: float | None = None,
        namespace: str | None = None,
        client_lease: str | None = None,
    ) -> StoredSandbox | None:
        """Turn a live row into a tombstone; the row after the change, or None.

        `limit` is the one that it ran into, as results name them. With `due`, only if its deadline is not later than
        that; with `namespace` or `client_lease`, only if it is in that one.
        """
        ...

    def set_deadline(
        self, sandbox_id: str, *, deadline: float | None, timeout_seconds: int | None
    ) -> StoredSandbox | None:
        """Change the deadline of a live row; the row after the change, or None."""
        ...

    def set_network(self, sandbox_id: str, network: EgressPolicy | None) -> StoredSandbox | None:
        """Change what a live row says of its network; the row after the change, or None."""
        ...

    def set_previews(self, sandbox_id: str, terms: PreviewTerms) -> StoredSandbox | None:
        """Change what holds for the previews of a live row; the row after the change, or None."""
        ...

    def set_secrets(self, sandbox_id: str, secrets: Mapping[str, BoundSecret]) -> StoredSandbox | None:
        """Change what a live row says of its secrets; the row after the change, or None."""
        ...

    def with_secrets(self, namespace: str | None = None) -> tuple[StoredSandbox, ...]:
        """Live rows that have secrets: of one namespace, or of all."""
        ...

    def prune(self, *, ended_before: float) -> int:
        """Drop tombstones that are older; how many."""
        ...


class TemplateRepository(Protocol):
    """Templates under decimal ids that never change."""

    def all(self) -> tuple[StoredTemplate, ...]:
        """Every template, by id."""
        ...

    def get(self, template_id: int) -> StoredTemplate | None:
        """One of them."""
        ...

    def put(self, manifest: TemplateManifest, *, at: float) -> StoredTemplate | None:
        """Insert or update the row of the manifest's name. A derived one that no row stands for is nobody's: None."""
        ...

    def add(self, *, namespace: str, name: str, build: StoredBuild) -> StoredTemplate:
        """A tenant's new template, whose build begins; CONFLICT when the tenant has one of that name."""
        ...

    def set_build(
        self, template_id: int, build: StoredBuild, status: BuildStatus, *, log: str
    ) -> StoredTemplate | None:
        """How far it is; the row after the change, or None when it was removed meanwhile."""
        ...

    def build_log(self, template_id: int) -> str:
        """What the last build said."""
        ...

    def remove(self, template_id: int) -> None:
        """Drop the row of a tenant's own template. Its id is never given out again."""
        ...


class KeyRepository(Protocol):
    """API keys, hashed."""

    def add(self, key: StoredKey) -> None:
        """Insert a row; CONFLICT when the id is taken."""
        ...

    def get(self, key_id: str) -> StoredKey | None:
        """The row, revoked and expired ones included."""
        ...

    def all(self, *, namespace: str | None = None) -> tuple[StoredKey, ...]:
        """All keys, oldest first."""
        ...

    def revoke(self, key_id: str, *, at: float) -> StoredKey | None:
        """Mark a key that is not revoked yet; the row after the change, or None."""
        ...

    def rename(self, key_id: str, name: str) -> StoredKey | None:
        """Change its name; the row after the change, or None."""
        ...

    def count(self, *, namespace: str) -> int:
        """How many keys of a namespace are kept, in force or not."""
        ...

    def prune(self, *, over_before: float) -> int:
        """Drop keys that were revoked or expired before then; how many."""
        ...

    def touch(self, used: Mapping[str, float]) -> None:
        """Note when keys were last used (key id -> time)."""
        ...


class EventRepository(Protocol):
    """The append-only record of who did what. The database itself refuses changes, and to drop what is not old.

    Texts are cut to what fits, and characters that do not print replaced: much of them was chosen by clients.
    """

    def add(self, event: StoredEvent) -> None:
        """Append one event."""
        ...

    def extend(self, events: Sequence[StoredEvent]) -> None:
        """Append events."""
        ...

    def page(self, query: EventQuery) -> EventSlice:
        """Events that match, newest first. How many are looked through is bounded: a page may show fewer than there
        are, or none, and say where to go on."""
        ...

    def after(self, event_id: int, *, limit: int) -> tuple[StoredEvent, ...]:
        """The oldest events with a larger id, of all namespaces, oldest first."""
        ...

    def recent(self, *, namespace: str, limit: int = 100) -> tuple[StoredEvent, ...]:
        """The newest events of a namespace, newest first."""
        ...

    def prune(self, *, before: float) -> int:
        """Drop events that are older, except the newest of all; how many. Only for what is older than a day."""
        ...


class ExecutionRepository(Protocol):
    """Asynchronous executions. One is open until its webhook is delivered or given up."""

    def add(self, execution: StoredExecution, *, program: bytes, callback: bytes) -> None:
        """Insert a row; CONFLICT when the id is taken."""
        ...

    def get(self, execution_id: str) -> StoredExecution | None:
        """The row."""
        ...

    def part(self, execution_id: str, part: ExecutionPart) -> bytes | None:
        """A sealed part, or None when it is not kept (any more)."""
        ...

    def page(self, query: ExecutionQuery) -> tuple[StoredExecution, ...]:
        """Rows that match, newest first."""
        ...

    def open_ids(self) -> tuple[str, ...]:
        """Every open execution, of all namespaces, oldest first."""
        ...

    def count_open(self, *, namespace: str | None = None) -> int:
        """How many are open."""
        ...

    def move(
        self, execution_id: str, *, source: ExecutionStatus, target: ExecutionStatus, at: float
    ) -> StoredExecution | None:
        """Move to `target` if the row is in `source`; the row after the change, or None.

        `at` is noted when it begins to start, forgotten when it is queued again; once it runs, the program is dropped.
        """
        ...

    def interrupt(self, sandbox_id: str) -> None:
        """Mark those of a sandbox that have begun, or may have, and have not ended: their program is gone."""
        ...

    def finish(self, execution_id: str, end: ExecutionEnd) -> StoredExecution | None:
        """Note how it ended, if it has not: its webhook is due now. The row after the change, or None."""
        ...

    def note_attempt(
        self, execution_id: str, *, delivery: DeliveryState, at: float, failure: str | None, next_at: float | None
    ) -> StoredExecution | None:
        """Note one attempt of a pending webhook; the row after the change, or None when it is not pending."""
        ...

    def deliver_again(self, execution_id: str, *, at: float, until: float) -> StoredExecution | None:
        """Make the webhook due, if the program has ended and its result is kept; the row after, or None."""
        ...

    def trim(self, namespace: str, *, records: int, result_bytes: int) -> None:
        """Drop the oldest records, and results, that are not open until the namespace's are within these bounds."""
        ...

    def prune(self, *, ended_before: float) -> int:
        """Drop those that ended earlier and are not open; how many."""
        ...


class NamespaceRepository(Protocol):
    """Tenants under numbers that never change."""

    def get(self, name: str) -> StoredNamespace | None:
        """The namespace, if a key was ever made in it, or somebody entered it."""
        ...

    def count(self) -> int:
        """How many there are."""
        ...

    def all(self) -> tuple[StoredNamespace, ...]:
        """Every namespace, by number."""
        ...

    def ensure(self, name: str, *, at: float) -> StoredNamespace:
        """The namespace, which gets the next number if it is new."""
        ...

    def rename(self, name: str, display_name: str) -> StoredNamespace:
        """Change what people call it; LookupError when there is none."""
        ...

    def set_quota(self, name: str, quota: Quota) -> StoredNamespace:
        """Replace its ceilings; LookupError when there is none."""
        ...


class CreateRepository(Protocol):
    """Creates that carried an idempotency key."""

    def add(self, create: StoredCreate) -> None:
        """Remember a create; CONFLICT when the scope is taken."""
        ...

    def get(self, scope: bytes) -> StoredCreate | None:
        """The create that has this scope."""
        ...

    def scopes(self, *, since: float, limit: int) -> tuple[bytes, ...]:
        """The scopes of all that are not older, at most so many."""
        ...

    def forget(self, scope: bytes) -> None:
        """Drop one."""
        ...

    def prune(self, *, before: float) -> int:
        """Drop those that are older; how many."""
        ...

    def trim(self, namespace: str, *, keep: int) -> int:
        """Drop the oldest of a namespace until so many are left; how many were dropped."""
        ...


class SecretRepository(Protocol):
    """Secrets of namespaces, their values sealed."""

    def add(self, secret: StoredSecret) -> None:
        """Insert a row; CONFLICT when the name is taken."""
        ...

    def replace(self, secret: StoredSecret) -> None:
        """Change the row of the same name."""
        ...

    def get(self, namespace: str, name: str) -> StoredSecret | None:
        """The row."""
        ...

    def sealed(self, namespace: str, name: str) -> bytes | None:
        """Its value, sealed, which does not change until the transaction ends; None: there is no such secret."""
        ...

    def all(self, namespace: str) -> tuple[StoredSecret, ...]:
        """Those of a namespace, by name."""
        ...

    def count(self, namespace: str) -> int:
        """How many a namespace has."""
        ...

    def remove(self, namespace: str, name: str) -> None:
        """Drop a row."""
        ...


class UsageRepository(Protocol):
    """What namespaces used, computed from events and sandboxes as far as they are kept."""

    def count_events(self, namespace: str, action: str, *, start: float, end: float) -> int:
        """How many events of one kind there were in a span of time."""
        ...

    def between(self, namespace: str, *, start: float, end: float) -> StoredUsage:
        """What the namespace's sandboxes used in a span of time."""
        ...


class UnitOfWork(Protocol):
    """One transaction: everything in it happens, or nothing."""

    @property
    def sandboxes(self) -> SandboxRepository:
        """The sandboxes."""
        ...

    @property
    def templates(self) -> TemplateRepository:
        """The templates."""
        ...

    @property
    def keys(self) -> KeyRepository:
        """The API keys."""
        ...

    @property
    def events(self) -> EventRepository:
        """The events."""
        ...

    @property
    def namespaces(self) -> NamespaceRepository:
        """The namespaces."""
        ...

    @property
    def creates(self) -> CreateRepository:
        """Creates that can be repeated."""
        ...

    @property
    def secrets(self) -> SecretRepository:
        """The secrets of namespaces."""
        ...

    @property
    def usage(self) -> UsageRepository:
        """What namespaces used."""
        ...

    @property
    def executions(self) -> ExecutionRepository:
        """The asynchronous executions."""
        ...


class Store(Protocol):
    """Where units of work run: outside the event loop, each as one function from begin to commit.

    So a cancelled request never leaves a transaction half done; one that has begun is finished regardless.
    """

    async def write(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run `work` in a transaction that commits when it returns, and leaves nothing when it raises."""
        ...

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run `work`, which only reads; several statements need not see the same state."""
        ...
