"""Sandboxes and their tombstones in the database."""

from collections.abc import Mapping
from contextlib import nullcontext
from itertools import product
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, bindparam, delete, func, insert, null, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate

from cove.models.errors import error
from cove.models.isolation import Isolation
from cove.models.limits import Limits
from cove.models.network import EgressPolicy
from cove.models.previews import PreviewAccess, PreviewTerms
from cove.models.sandboxes import EndReason, SandboxStatus, name_taken
from cove.models.scopes import EVERY_NAMESPACE
from cove.models.secrets import BoundSecret
from cove.models.stored import SandboxQuery, StoredSandbox
from cove.store.schema import LIVE_AND_NAMED, LIVE_WITH_SECRETS, SANDBOXES

_LIVE = SANDBOXES.c.status != SandboxStatus.DELETED
_INSERT = insert(SANDBOXES)
_GET = select(SANDBOXES).where(SANDBOXES.c.id == bindparam("sandbox_id"))


_HOLDER = select(SANDBOXES.c.id).where(
    SANDBOXES.c.namespace == bindparam("owner"),
    SANDBOXES.c.client_lease == bindparam("lease"),
    SANDBOXES.c.name == bindparam("wanted"),
    LIVE_AND_NAMED,
)


def _end_statement(*, due: bool, owner: bool, lease: bool) -> ReturningUpdate[Any]:
    change = update(SANDBOXES).where(SANDBOXES.c.id == bindparam("sandbox_id"), _LIVE)
    if due:
        change = change.where(SANDBOXES.c.deadline <= bindparam("due"))
    if owner:
        change = change.where(SANDBOXES.c.namespace == bindparam("owner"))
    if lease:
        change = change.where(SANDBOXES.c.client_lease == bindparam("lease"))
    values: dict[str, Any] = {
        "status": SandboxStatus.DELETED,
        "ended_at": bindparam("ended_at"),
        "end_reason": bindparam("end_reason"),
        "end_limit": bindparam("end_limit"),
    }
    return change.values(values).returning(*SANDBOXES.c)


_END = {
    (due, owner, lease): _end_statement(due=due, owner=owner, lease=lease)
    for due, owner, lease in product((False, True), repeat=3)
}
"""Built once: building a statement costs more than running it."""

_LIMIT_COLUMNS = ("vcpu", "memory_mb", "disk_mb", "pids", "open_files")
_MORE_LIMITS = {name: field.default for name, field in Limits.model_fields.items() if name not in _LIMIT_COLUMNS}
"""They seldom differ from their defaults, and share one column."""


class SqlSandboxRepository:
    """Implements the core's `SandboxRepository`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, sandbox: StoredSandbox) -> None:
        """Insert a row; CONFLICT when the id or the name is taken."""
        try:
            with self._connection.begin_nested() if sandbox.name else nullcontext():
                self._connection.execute(_INSERT, _values(sandbox))
        except IntegrityError as failure:
            holder = self.holder(sandbox.name, sandbox.namespace, sandbox.client_lease) if sandbox.name else None
            if holder is not None and sandbox.name is not None:
                raise name_taken(sandbox.name, holder) from failure
            raise error("CONFLICT", f"A sandbox with the id {sandbox.id} exists already.") from failure

    def holder(self, name: str, namespace: str, client_lease: str) -> str | None:
        """The id of the live sandbox that has this name there."""
        values = {"owner": namespace, "lease": client_lease, "wanted": name}
        return self._connection.execute(_HOLDER, values).scalar()

    def get(self, sandbox_id: str) -> StoredSandbox | None:
        """The row, tombstones included."""
        row = self._connection.execute(_GET, {"sandbox_id": sandbox_id}).mappings().first()
        return None if row is None else _sandbox(row)

    def page(self, query: SandboxQuery) -> tuple[StoredSandbox, ...]:
        """Rows that match, newest first (keyset pages: no row is skipped or shown twice while others come and go)."""
        columns = SANDBOXES.c
        wanted = select(SANDBOXES).where(_LIVE if query.status is None else columns.status == query.status)
        if query.namespace != EVERY_NAMESPACE:
            wanted = wanted.where(columns.namespace == query.namespace)
        if query.name is not None and query.status is None:
            wanted = wanted.where(LIVE_AND_NAMED)
        for column in (columns.region, columns.name, columns.client_lease):
            value = getattr(query, column.name)
            if value is not None:
                wanted = wanted.where(column == value)
        if query.before is not None:
            created, last = query.before
            older = or_(columns.created_at < created, and_(columns.created_at == created, columns.id < last))
            wanted = wanted.where(older)
        wanted = wanted.order_by(columns.created_at.desc(), columns.id.desc()).limit(query.limit)
        return tuple(_sandbox(row) for row in self._connection.execute(wanted).mappings())

    def live(self) -> tuple[StoredSandbox, ...]:
        """Every row that has not ended, of all namespaces."""
        result = self._connection.execute(select(SANDBOXES).where(_LIVE))
        return tuple(_sandbox(row) for row in result.mappings())

    def count_by_status(self) -> Mapping[SandboxStatus, int]:
        """How many rows there are in each state that is not an end state."""
        status = SANDBOXES.c.status
        result = self._connection.execute(select(status, func.count()).where(_LIVE).group_by(status))
        return {SandboxStatus(name): count for name, count in result}

    def transition(
        self, sandbox_id: str, *, sources: frozenset[SandboxStatus], target: SandboxStatus
    ) -> StoredSandbox | None:
        """Move to `target` if the row is in one of `sources`; the row after the change, or None."""
        change = update(SANDBOXES).where(SANDBOXES.c.id == sandbox_id, SANDBOXES.c.status.in_(sorted(sources)))
        return self._change(change.values(status=target).returning(*SANDBOXES.c))

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
        """Turn a live row into a tombstone, or None if it is not live, is due later, or is not there."""
        values: dict[str, Any] = {
            "sandbox_id": sandbox_id,
            "ended_at": at,
            "end_reason": reason.value,
            "end_limit": limit,
        }
        if due is not None:
            values["due"] = due
        if namespace is not None:
            values["owner"] = namespace
        if client_lease is not None:
            values["lease"] = client_lease
        return self._change(_END[due is not None, namespace is not None, client_lease is not None], values)

    def set_deadline(
        self, sandbox_id: str, *, deadline: float | None, timeout_seconds: int | None
    ) -> StoredSandbox | None:
        """Change the deadline of a live row; the row after the change, or None."""
        change = update(SANDBOXES).where(SANDBOXES.c.id == sandbox_id, _LIVE)
        change = change.values(deadline=deadline, timeout_seconds=timeout_seconds)
        return self._change(change.returning(*SANDBOXES.c))

    def set_network(self, sandbox_id: str, network: EgressPolicy | None) -> StoredSandbox | None:
        """Change what a live row says of its network; the row after the change, or None."""
        change = update(SANDBOXES).where(SANDBOXES.c.id == sandbox_id, _LIVE)
        change = change.values(
            network=null() if network is None else network.model_dump(mode="json"),
            internet_access=network is not None and network.is_public,
        )
        return self._change(change.returning(*SANDBOXES.c))

    def set_previews(self, sandbox_id: str, terms: PreviewTerms) -> StoredSandbox | None:
        """Change what holds for the previews of a live row; the row after the change, or None."""
        change = update(SANDBOXES).where(SANDBOXES.c.id == sandbox_id, _LIVE)
        change = change.values(preview_access=terms.access and terms.access.value, preview_epoch=terms.epoch)
        return self._change(change.returning(*SANDBOXES.c))

    def set_secrets(self, sandbox_id: str, secrets: Mapping[str, BoundSecret]) -> StoredSandbox | None:
        """Change what a live row says of its secrets; the row after the change, or None."""
        change = update(SANDBOXES).where(SANDBOXES.c.id == sandbox_id, _LIVE)
        return self._change(change.values(secrets=_secret_values(secrets) or null()).returning(*SANDBOXES.c))

    def with_secrets(self, namespace: str | None = None) -> tuple[StoredSandbox, ...]:
        """Live rows that have secrets: of one namespace, or of all."""
        wanted = select(SANDBOXES).where(LIVE_WITH_SECRETS)
        if namespace is not None:
            wanted = wanted.where(SANDBOXES.c.namespace == namespace)
        return tuple(_sandbox(row) for row in self._connection.execute(wanted).mappings())

    def prune(self, *, ended_before: float) -> int:
        """Drop tombstones that are older; how many."""
        old = and_(SANDBOXES.c.status == SandboxStatus.DELETED, SANDBOXES.c.ended_at < ended_before)
        return self._connection.execute(delete(SANDBOXES).where(old)).rowcount

    def _change(self, change: ReturningUpdate[Any], values: Mapping[str, Any] | None = None) -> StoredSandbox | None:
        row = self._connection.execute(change, values).mappings().first()
        return None if row is None else _sandbox(row)


def _values(sandbox: StoredSandbox) -> dict[str, Any]:
    limits = sandbox.limits
    return {
        "id": sandbox.id,
        "namespace": sandbox.namespace,
        "status": sandbox.status.value,
        "template_id": sandbox.template_id,
        "template_name": sandbox.template_name,
        "template_digest": sandbox.template_digest,
        "isolation": sandbox.isolation.value,
        **{name: getattr(limits, name) for name in _LIMIT_COLUMNS},
        "more_limits": _more_limits(limits),
        "unenforced": list(sandbox.unenforced) or None,
        "internet_access": sandbox.internet_access,
        "network": None if sandbox.network is None else sandbox.network.model_dump(mode="json"),
        "preview_access": sandbox.preview_access and sandbox.preview_access.value,
        "preview_epoch": sandbox.preview_epoch,
        "secrets": _secret_values(sandbox.secrets) or None,
        "region": sandbox.region,
        "timeout_seconds": sandbox.timeout_seconds,
        "created_at": sandbox.created_at,
        "deadline": sandbox.deadline,
        "ended_at": sandbox.ended_at,
        "end_reason": sandbox.end_reason and sandbox.end_reason.value,
        "end_limit": sandbox.end_limit,
        "host_id": sandbox.host_id,
        "lease_epoch": sandbox.lease_epoch,
        "created_by": sandbox.created_by,
        "organization_id": sandbox.organization_id,
        "name": sandbox.name,
        "client_lease": sandbox.client_lease,
    }


def _secret_values(secrets: Mapping[str, BoundSecret]) -> dict[str, Any]:
    return {name: secret.model_dump(mode="json", exclude_defaults=True) for name, secret in secrets.items()}


def _secrets(stored: dict[str, dict[str, Any]] | None) -> Mapping[str, BoundSecret]:
    return {name: BoundSecret.model_validate(values) for name, values in (stored or {}).items()}


def _more_limits(limits: Limits) -> dict[str, int] | None:
    found = {name: getattr(limits, name) for name in _MORE_LIMITS}
    return {name: value for name, value in found.items() if value != _MORE_LIMITS[name]} or None


def _limits(row: RowMapping) -> Limits:
    more: dict[str, int] = row["more_limits"] or {}
    return Limits(**{name: row[name] for name in _LIMIT_COLUMNS}, **more)


def _sandbox(row: RowMapping) -> StoredSandbox:
    reason: str | None = row["end_reason"]
    return StoredSandbox(
        id=row["id"],
        namespace=row["namespace"],
        status=SandboxStatus(row["status"]),
        template_id=row["template_id"],
        template_name=row["template_name"],
        template_digest=row["template_digest"],
        isolation=Isolation(row["isolation"]),
        limits=_limits(row),
        unenforced=tuple(row["unenforced"] or ()),
        internet_access=row["internet_access"],
        network=None if row["network"] is None else EgressPolicy.model_validate(row["network"]),
        preview_access=None if row["preview_access"] is None else PreviewAccess(row["preview_access"]),
        preview_epoch=row["preview_epoch"],
        secrets=_secrets(row["secrets"]),
        region=row["region"],
        timeout_seconds=row["timeout_seconds"],
        created_at=row["created_at"],
        deadline=row["deadline"],
        ended_at=row["ended_at"],
        end_reason=None if reason is None else EndReason(reason),
        end_limit=row["end_limit"],
        host_id=row["host_id"],
        lease_epoch=row["lease_epoch"],
        created_by=row["created_by"],
        organization_id=row["organization_id"],
        name=row["name"],
        client_lease=row["client_lease"],
    )
