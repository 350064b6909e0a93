"""Secrets that are kept for namespaces, and what the secrets of a create come to.

Values are in the store only sealed, and bound to namespace and name. Whoever may set a secret says for which hosts it
is: sandboxes are given it for these or fewer, so that whoever may only make sandboxes cannot send it elsewhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cove.core.clock import Clock
from cove.core.principal import Principal
from cove.core.storage import Store, UnitOfWork
from cove.keys.sealing import Sealer
from cove.models.errors import CoveError, error
from cove.models.secrets import (
    MAX_VAULT_SECRETS,
    BoundSecret,
    EgressSecret,
    SandboxSecret,
    SecretPlace,
    SetVaultSecret,
    new_placeholder,
    rule_of,
)
from cove.models.stored import StoredSandbox, StoredSecret

_HEADERS = (SecretPlace.HEADERS,)


@dataclass(frozen=True, slots=True)
class ResolvedSecret:
    """A secret of a create.

    Attributes:
        held: what the host gets.
        from_vault: the name under which it is kept; None for a value that came with the request.
        sealed: how it is kept.
    """

    held: EgressSecret
    from_vault: str | None = None
    sealed: bytes | None = field(default=None, repr=False)

    @property
    def bound(self) -> BoundSecret:
        """What is remembered of it."""
        return BoundSecret(
            hosts=self.held.hosts,
            places=tuple(sorted(self.held.places)),
            from_vault=self.from_vault,
            placeholder=self.held.placeholder,
        )


@dataclass(frozen=True, slots=True)
class VaultEntry:
    """A secret of a namespace, and the ids of the sandboxes that use it."""

    secret: StoredSecret
    users: tuple[str, ...]


class Vault:
    """The secrets of all namespaces. Sandboxes that run have them from `SecretDelivery`."""

    def __init__(self, store: Store, sealer: Sealer, *, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock

    async def list(self, principal: Principal) -> tuple[VaultEntry, ...]:
        """Those of the principal's namespace, by name."""
        return await self._store.read(lambda work: _entries(work, principal.namespace))

    async def put(self, principal: Principal, name: str, wanted: SetVaultSecret) -> VaultEntry:
        """Keep a secret, in place of the one of this name if there is one.

        Raises:
            CoveError: MISSING_PARAMETER for a new one without hosts; RESOURCE_LIMIT_EXCEEDED.
        """
        sealed = self._sealer.seal(_label(principal.namespace, name), wanted.value.encode())
        now = self._clock()
        return await self._store.write(lambda work: _put(work, principal, name, wanted, sealed, now))

    async def remove(self, principal: Principal, name: str, *, force: bool) -> VaultEntry:
        """Forget a secret. With `force` it is withdrawn from sandboxes that use it.

        Raises:
            CoveError: RESOURCE_NOT_FOUND; CONFLICT when sandboxes use it and `force` is not given.
        """
        now = self._clock()
        return await self._store.write(lambda work: _remove(work, principal, name, now, force=force))

    async def resolve(
        self, principal: Principal, wanted: Mapping[str, SandboxSecret] | None
    ) -> tuple[ResolvedSecret, ...]:
        """The secrets of a create, each with its value and a placeholder of its own.

        Raises:
            CoveError: RESOURCE_NOT_FOUND for one that is not kept; FORBIDDEN for hosts or places that it is not kept
                for; INTERNAL_ERROR when it cannot be read.
        """
        if not wanted:
            return ()
        names = {secret.from_vault for secret in wanted.values() if secret.from_vault is not None}
        kept: dict[str, StoredSecret] = {}
        if names:
            kept = await self._store.read(lambda work: _kept(work, principal.namespace, names))
        return tuple(self._resolved(name, secret, kept) for name, secret in wanted.items())

    async def current(self, sandbox: StoredSandbox) -> tuple[tuple[EgressSecret, ...], tuple[str, ...]]:
        """What a sandbox's host should have of what is kept here, as it is now, and names of those that it should not
        have (any more).

        Raises:
            CoveError: INTERNAL_ERROR when one cannot be read.
        """
        names = {secret.from_vault for secret in sandbox.secrets.values() if secret.from_vault is not None}
        kept = await self._store.read(lambda work: _kept(work, sandbox.namespace, names))
        held: list[EgressSecret] = []
        gone: list[str] = []
        for name, secret in sandbox.secrets.items():
            stored = kept.get(secret.from_vault or "")
            hosts = () if stored is None else _covered(secret.hosts, stored)
            places = frozenset[SecretPlace]() if stored is None else frozenset(secret.places) & {*stored.places}
            if secret.withdrawn or (secret.from_vault is not None and not (hosts and places)):
                gone.append(name)
            elif stored is not None:
                value = self._value(stored)
                held.append(
                    EgressSecret(name=name, placeholder=secret.placeholder, value=value, hosts=hosts, places=places)
                )
        return tuple(held), tuple(gone)

    def _resolved(self, name: str, wanted: SandboxSecret, kept: Mapping[str, StoredSecret]) -> ResolvedSecret:
        if wanted.from_vault is None:
            return ResolvedSecret(given(name, wanted))
        stored = kept.get(wanted.from_vault)
        if stored is None:
            raise _unknown(wanted.from_vault)
        hosts, places = wanted.hosts or stored.hosts, wanted.places or stored.places
        _check_within(stored, hosts, places)
        return ResolvedSecret(_held(name, self._value(stored), hosts, places), stored.name, stored.sealed)

    def _value(self, stored: StoredSecret) -> str:
        return self._sealer.open(_label(stored.namespace, stored.name), stored.sealed).decode()


def given(name: str, wanted: SandboxSecret) -> EgressSecret:
    """A secret whose value came with the request, with a placeholder of its own."""
    assert wanted.value is not None
    assert wanted.hosts is not None
    return _held(name, wanted.value, wanted.hosts, wanted.places or _HEADERS)


def check_unchanged(work: UnitOfWork, namespace: str, secrets: Iterable[ResolvedSecret]) -> bool:
    """Whether what a create has of the vault is what is kept in this transaction, and until it ends.

    Raises:
        CoveError: RESOURCE_NOT_FOUND when one is not kept any more.
    """
    same = True
    for secret in secrets:
        if secret.from_vault is None:
            continue
        sealed = work.secrets.sealed(namespace, secret.from_vault)
        if sealed is None:
            raise _unknown(secret.from_vault)
        same = same and sealed == secret.sealed
    return same


def _label(namespace: str, name: str) -> str:
    return f"secret {namespace} {name}"


def _held(name: str, value: str, hosts: tuple[str, ...], places: Iterable[SecretPlace]) -> EgressSecret:
    return EgressSecret(name=name, placeholder=new_placeholder(), value=value, hosts=hosts, places=frozenset(places))


def _kept(work: UnitOfWork, namespace: str, names: Iterable[str]) -> dict[str, StoredSecret]:
    found = (work.secrets.get(namespace, name) for name in sorted(names))
    return {secret.name: secret for secret in found if secret is not None}


def _entries(work: UnitOfWork, namespace: str) -> tuple[VaultEntry, ...]:
    users: dict[str, list[str]] = {}
    for row in work.sandboxes.with_secrets(namespace):
        for name in {secret.from_vault for secret in row.secrets.values() if not secret.withdrawn}:
            users.setdefault(name or "", []).append(row.id)
    return tuple(VaultEntry(secret, tuple(users.get(secret.name, ()))) for secret in work.secrets.all(namespace))


def _users(work: UnitOfWork, namespace: str, name: str) -> tuple[StoredSandbox, ...]:
    rows = work.sandboxes.with_secrets(namespace)
    return tuple(
        row
        for row in rows
        if any(secret.from_vault == name and not secret.withdrawn for secret in row.secrets.values())
    )


def _put(
    work: UnitOfWork, principal: Principal, name: str, wanted: SetVaultSecret, sealed: bytes, now: float
) -> VaultEntry:
    former = work.secrets.get(principal.namespace, name)
    if former is None:
        _check_room(work, principal.namespace)
        if wanted.hosts is None:
            raise error(
                "MISSING_PARAMETER",
                f"There is no secret {name!r} yet, and its hosts are missing.",
                remedy='Say to which hosts it may go: hosts: ["api.example.com"].',
                field="hosts",
            )
    secret = StoredSecret(
        namespace=principal.namespace,
        name=name,
        sealed=sealed,
        hosts=wanted.hosts or (former.hosts if former else ()),
        places=wanted.places or (former.places if former else _HEADERS),
        created_at=former.created_at if former else now,
        updated_at=now,
    )
    (work.secrets.replace if former else work.secrets.add)(secret)
    details = {"hosts": list(secret.hosts[:20]), "places": list(secret.places), "replaced": former is not None}
    work.events.add(principal.event("secret.set", name, at=now, details=details))
    return VaultEntry(secret, tuple(row.id for row in _users(work, principal.namespace, name)))


def _remove(work: UnitOfWork, principal: Principal, name: str, now: float, *, force: bool) -> VaultEntry:
    secret = work.secrets.get(principal.namespace, name)
    if secret is None:
        raise _unknown(name)
    users = _users(work, principal.namespace, name)
    if users and not force:
        count = "a sandbox uses" if len(users) == 1 else f"{len(users)} sandboxes use"
        raise error(
            "CONFLICT",
            f"The secret {name!r} cannot be deleted: {count} it.",
            remedy="End them, or delete it with force=true, which withdraws it from them at once.",
            sandboxes=len(users),
        )
    for row in users:
        work.sandboxes.set_secrets(row.id, withdrawn_from(row, from_vault=name))
    work.secrets.remove(principal.namespace, name)
    work.events.add(principal.event("secret.deleted", name, at=now, details={"sandboxes": len(users)}))
    return VaultEntry(secret, tuple(row.id for row in users))


def withdrawn_from(row: StoredSandbox, *, from_vault: str) -> dict[str, BoundSecret]:
    """A sandbox's secrets, without those that come from one of the vault."""
    return {
        name: secret.model_copy(update={"withdrawn": True}) if secret.from_vault == from_vault else secret
        for name, secret in row.secrets.items()
    }


def _check_room(work: UnitOfWork, namespace: str) -> None:
    count = work.secrets.count(namespace)
    if count >= MAX_VAULT_SECRETS:
        raise error(
            "RESOURCE_LIMIT_EXCEEDED",
            f"This namespace has reached its limit of {MAX_VAULT_SECRETS} secrets.",
            remedy="Delete those that are not needed.",
            limit=MAX_VAULT_SECRETS,
            current=count,
            available=0,
        )


def _covered(hosts: Iterable[str], stored: StoredSecret) -> tuple[str, ...]:
    """Those of `hosts` that a secret is kept for."""
    rules = tuple(map(rule_of, stored.hosts))
    return tuple(host for host in hosts if any(rule.covers(rule_of(host)) for rule in rules))


def _check_within(stored: StoredSecret, hosts: tuple[str, ...], places: Iterable[SecretPlace]) -> None:
    beyond = [*sorted({*hosts} - {*_covered(hosts, stored)}), *sorted({*places} - {*stored.places})]
    if beyond:
        raise error(
            "FORBIDDEN",
            f"The secret {stored.name!r} may go to {', '.join(stored.hosts)} in {', '.join(stored.places)},"
            f" not to {', '.join(beyond)}.",
            remedy="Ask for less, or have whoever may set it (scope admin) set it for these too.",
            field="secrets",
        )


def _unknown(name: str) -> CoveError:
    return error(
        "RESOURCE_NOT_FOUND",
        f"This namespace has no secret {name!r}.",
        remedy="`cove secrets list` shows those that there are; `cove secrets set NAME` keeps one.",
        name=name,
    )
