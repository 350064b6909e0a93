"""Changing secrets on behalf of a principal: those of its namespace, and those that one of its sandboxes has."""

from dataclasses import dataclass

from cove.core.background import Background
from cove.core.clock import Clock
from cove.core.lifecycle import Lifecycle
from cove.core.locks import KeyedLocks
from cove.core.principal import Principal
from cove.core.secret_delivery import SecretDelivery
from cove.core.storage import Store, UnitOfWork
from cove.core.vault import Vault, VaultEntry
from cove.models.errors import CoveError, error
from cove.models.secrets import BoundSecret, EgressSecret, SetVaultSecret
from cove.models.stored import StoredEvent, StoredSandbox


@dataclass(frozen=True, slots=True)
class VaultChange:
    """A change of a secret of a namespace.

    Attributes:
        behind: how many of the sandboxes that use it have not had it yet.
    """

    entry: VaultEntry
    behind: int


class SecretChanges:
    """All of them are in force at once, in sandboxes that run and in those that are paused or stopped."""

    def __init__(
        self,
        *,
        store: Store,
        vault: Vault,
        delivery: SecretDelivery,
        lifecycle: Lifecycle,
        background: Background,
        locks: KeyedLocks,
        clock: Clock,
    ) -> None:
        self._store = store
        self._vault = vault
        self._delivery = delivery
        self._lifecycle = lifecycle
        self._background = background
        self._locks = locks
        self._clock = clock

    async def list(self, principal: Principal) -> tuple[VaultEntry, ...]:
        """Those of the principal's namespace, by name."""
        return await self._vault.list(principal)

    async def put(self, principal: Principal, name: str, wanted: SetVaultSecret) -> VaultChange:
        """Keep a secret, or change it: then sandboxes that use it have the new value.

        Raises:
            CoveError: MISSING_PARAMETER for a new one without hosts; RESOURCE_LIMIT_EXCEEDED.
        """
        return await self._background.finish(self._put(principal, name, wanted), name="set a secret")

    async def remove(self, principal: Principal, name: str, *, force: bool) -> VaultChange:
        """Forget a secret; with `force` also where sandboxes use it, from which it is withdrawn.

        Raises:
            CoveError: RESOURCE_NOT_FOUND; CONFLICT when sandboxes use it.
        """
        return await self._background.finish(self._remove(principal, name, force=force), name="delete a secret")

    async def change(self, principal: Principal, sandbox_id: str, name: str, value: str) -> BoundSecret:
        """Give a secret of one sandbox another value; its placeholder stays.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; RESOURCE_NOT_FOUND; CONFLICT for one that comes from the vault.
        """
        return await self._background.finish(
            self._change(principal, sandbox_id, name, value), name=f"secret of {sandbox_id[:32]}"
        )

    async def withdraw(self, principal: Principal, sandbox_id: str, name: str) -> BoundSecret:
        """Take a secret away from one sandbox: its placeholder stands for nothing any more. Idempotent.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; RESOURCE_NOT_FOUND.
        """
        return await self._background.finish(
            self._change(principal, sandbox_id, name, None), name=f"secret of {sandbox_id[:32]}"
        )

    async def _put(self, principal: Principal, name: str, wanted: SetVaultSecret) -> VaultChange:
        entry = await self._vault.put(principal, name, wanted)
        return VaultChange(entry, await self._delivery.renew(entry.users))

    async def _remove(self, principal: Principal, name: str, *, force: bool) -> VaultChange:
        entry = await self._vault.remove(principal, name, force=force)
        return VaultChange(entry, await self._delivery.renew(entry.users))

    async def _change(self, principal: Principal, sandbox_id: str, name: str, value: str | None) -> BoundSecret:
        async with self._locks.hold(sandbox_id):
            row = await self._lifecycle.get(principal, sandbox_id)
            found = _secret_of(row, name)
            if value is not None and found.from_vault is not None:
                raise error(
                    "CONFLICT",
                    f"{name} of sandbox {row.id} has its value from the secret {found.from_vault!r}.",
                    remedy=f"Change that one: `cove secrets set {found.from_vault}`.",
                    from_vault=found.from_vault,
                )
            changed = found.model_copy(update={"withdrawn": value is None})
            if value is None:
                # The row first: if the host cannot be told now, it is told later.
                await self._note(principal, row, name, changed)
                await self._taken_away(row.id, name)
            else:
                await self._delivery.give(row.id, (_held(name, found, value),))
                await self._note(principal, row, name, changed)
            return changed

    async def _taken_away(self, sandbox_id: str, name: str) -> None:
        try:
            await self._delivery.give(sandbox_id, (), (name,))
        except CoveError:
            self._delivery.owe(sandbox_id)
            raise

    async def _note(self, principal: Principal, row: StoredSandbox, name: str, secret: BoundSecret) -> None:
        action = "sandbox.secret_withdrawn" if secret.withdrawn else "sandbox.secret_changed"
        event = principal.event(action, row.id, at=self._clock(), details={"secret": name})
        await self._store.write(lambda work: _set(work, row, {**row.secrets, name: secret}, event))


def _secret_of(row: StoredSandbox, name: str) -> BoundSecret:
    found = row.secrets.get(name)
    if found is None:
        raise error(
            "RESOURCE_NOT_FOUND",
            f"Sandbox {row.id} has no secret {name[:128]!r}.",
            remedy="Its secrets are those that it was created with; `cove sandboxes show ID` names them.",
            name=name[:128],
        )
    return found


def _held(name: str, secret: BoundSecret, value: str) -> EgressSecret:
    return EgressSecret(
        name=name,
        placeholder=secret.placeholder,
        value=value,
        hosts=secret.hosts,
        places=frozenset(secret.places),
    )


def _set(work: UnitOfWork, row: StoredSandbox, secrets: dict[str, BoundSecret], event: StoredEvent) -> None:
    if work.sandboxes.set_secrets(row.id, secrets) is not None:
        work.events.add(event)
