"""Who uses how much, in memory: filled from the store at start, so that no create has to ask for it.

Admission and bookkeeping never wait for anything, so of many creates at once exactly as many pass as there is room for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from cove.core.principal import Principal
from cove.models.errors import CoveError, error
from cove.models.limits import INODES_PER_MB, Limits
from cove.models.quotas import PER_SANDBOX, UNLIMITED, Quota
from cove.models.stored import StoredSandbox

_SERVER = ("server", "")
_LEAST = {"vcpu": 1, "memory_mb": 64, "disk_mb": 64, "pids": 16, "open_files": 64, "inodes": 256}
"""What a sandbox can do with at least (as in `Limits`)."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What some sandboxes may use together."""

    sandboxes: int = 0
    vcpu: int = 0
    memory_mb: int = 0
    disk_mb: int = 0

    @classmethod
    def of(cls, limits: Limits) -> Self:
        """One sandbox."""
        return cls(1, limits.vcpu, limits.memory_mb, limits.disk_mb)

    def plus(self, other: "Usage", sign: int = 1) -> "Usage":
        """Both together, or (`sign` -1) this without the other."""
        return Usage(
            self.sandboxes + sign * other.sandboxes,
            self.vcpu + sign * other.vcpu,
            self.memory_mb + sign * other.memory_mb,
            self.disk_mb + sign * other.disk_mb,
        )


_Scope = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Charge:
    """What one sandbox counts, and for whom."""

    namespace: str
    key: str
    usage: Usage

    @property
    def scopes(self) -> tuple[_Scope, ...]:
        """Every total that it is part of."""
        return _SERVER, ("namespace", self.namespace), ("key", self.key)


class Quotas:
    """Admits creates, and remembers what exists.

    Args:
        max_sandboxes: of all namespaces together.
        defaults: for namespaces, where the operator set nothing for one.
    """

    def __init__(self, *, max_sandboxes: int, defaults: Quota = UNLIMITED) -> None:
        self._server = Quota(max_sandboxes=max_sandboxes)
        self._defaults = defaults
        self._totals: dict[_Scope, Usage] = {}
        self._charges: dict[str, Charge] = {}
        self._released: set[str] = set()

    def quota_of(self, principal: Principal) -> Quota:
        """The ceilings of its namespace."""
        return principal.namespace_quota.over(self._defaults)

    def ceilings(self, principal: Principal) -> Quota:
        """The ceilings that it meets first: of its namespace and of its key, whichever is lower."""
        return self.quota_of(principal).within(principal.key_quota)

    def most_sandboxes(self, principal: Principal) -> int:
        """How many sandboxes there may be at the same time for it, at most."""
        return self.ceilings(principal).within(self._server).max_sandboxes or 0

    def usage_of(self, principal: Principal) -> Usage:
        """What its namespace uses."""
        return self._total(("namespace", principal.namespace))

    def ids(self) -> frozenset[str]:
        """Every sandbox that counts: to be asked before the rows are read with which to `settle`."""
        self._released.clear()
        return frozenset(self._charges)

    def admit(self, principal: Principal, limits: Limits) -> Charge:
        """Make room for a sandbox that is about to be made. Give the charge back, or bind it to the sandbox.

        Raises:
            CoveError: RESOURCE_LIMIT_EXCEEDED, with `limit`, `current` and `available`.
        """
        charge = Charge(principal.namespace, principal.actor, Usage.of(limits))
        server, namespace, key = charge.scopes
        self._check("This server", server, self._server, charge.usage, "raise the limit (COVE_MAX_SANDBOXES)")
        whose = f"Namespace {principal.namespace}"
        self._check(
            whose,
            namespace,
            self.quota_of(principal),
            charge.usage,
            "have the operator raise it (`cove namespaces limits`)",
        )
        self._check("This API key", key, principal.key_quota, charge.usage, "use a key without this limit")
        self._add(charge, 1)
        return charge

    def give_back(self, charge: Charge) -> None:
        """Undo an admission: nothing was made."""
        self._add(charge, -1)

    def bind(self, charge: Charge, sandbox_id: str) -> None:
        """The sandbox was made: it counts until it is released."""
        if sandbox_id in self._charges:
            self.give_back(charge)
        else:
            self._charges[sandbox_id] = charge

    def release(self, sandbox_id: str) -> None:
        """The sandbox has ended. Idempotent."""
        self._released.add(sandbox_id)
        charge = self._charges.pop(sandbox_id, None)
        if charge is not None:
            self._add(charge, -1)

    def settle(self, rows: Iterable[StoredSandbox], *, asked_about: frozenset[str]) -> None:
        """Learn what the store has: `rows` are all that live, and `asked_about` what counted before they were read."""
        present: set[str] = set()
        for row in rows:
            present.add(row.id)
            if row.id not in self._charges and row.id not in self._released:
                charge = Charge(row.namespace, row.created_by, Usage.of(row.limits))
                self._charges[row.id] = charge
                self._add(charge, 1)
        for sandbox_id in asked_about - present:
            self.release(sandbox_id)

    def _total(self, scope: _Scope) -> Usage:
        return self._totals.get(scope, Usage())

    def _add(self, charge: Charge, sign: int) -> None:
        for scope in charge.scopes:
            total = self._total(scope).plus(charge.usage, sign)
            if total.sandboxes:
                self._totals[scope] = total
            else:
                self._totals.pop(scope, None)

    def _check(self, whose: str, scope: _Scope, quota: Quota, more: Usage, way_out: str) -> None:
        if quota.is_open:
            return
        now = self._total(scope)
        for unit, most, taken, wanted in (
            ("sandboxes", quota.max_sandboxes, now.sandboxes, more.sandboxes),
            ("vCPUs", quota.max_total_vcpu, now.vcpu, more.vcpu),
            ("MB of memory", quota.max_total_memory_mb, now.memory_mb, more.memory_mb),
            ("MB of disk", quota.max_total_disk_mb, now.disk_mb, more.disk_mb),
        ):
            if most is not None and taken + wanted > most:
                raise _over(
                    f"{whose} has a limit of {most} {unit}, of which {taken} are taken.",
                    f"Kill some, or {way_out}.",
                    most,
                    taken,
                )


def fitted(limits: Limits, asked: frozenset[str], ceilings: Quota) -> Limits:
    """`limits` under the ceilings for one sandbox: what was asked for is refused when it is above, defaults shrink.

    Raises:
        CoveError: RESOURCE_LIMIT_EXCEEDED, naming the field.
    """
    changes: dict[str, int] = {}
    for ceiling, name in PER_SANDBOX.items():
        most: int | None = getattr(ceilings, ceiling)
        wanted: int | None = getattr(limits, name)
        if name == "inodes" and wanted is None:
            wanted = limits.disk_mb * INODES_PER_MB
        if most is None or (wanted is not None and wanted <= most):
            continue
        if name in asked or most < _LEAST.get(name, 1):
            raise above_maximum(name, wanted, most, f"the limit of {most} of this API key or its namespace")
        changes[name] = most
    return limits.model_copy(update=changes) if changes else limits


def above_maximum(name: str, asked: int | None, most: int, whose: str) -> CoveError:
    """Why a sandbox cannot have a limit that is asked for; `whose` is the maximum, in words."""
    wanted = "as much as there is" if asked is None else asked
    failure = _over(f"resources.{name} is {wanted}, above {whose}.", f"Ask for at most {most}.", most, asked or 0)
    failure.details.update(field=f"resources.{name}", available=most)
    return failure


def _over(message: str, remedy: str, most: int, taken: int) -> CoveError:
    return error(
        "RESOURCE_LIMIT_EXCEEDED", message, remedy=remedy, limit=most, current=taken, available=max(0, most - taken)
    )
