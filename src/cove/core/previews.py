"""Who may reach the programs in a sandbox, and links for those who hold no token of it."""

from dataclasses import dataclass

from cove.core.audit import AuditTrail
from cove.core.background import Background
from cove.core.clock import Clock
from cove.core.directory import LiveDirectory
from cove.core.lifecycle import Lifecycle
from cove.core.locks import KeyedLocks
from cove.core.principal import Principal
from cove.core.storage import Store, UnitOfWork
from cove.core.tokens import AgentTokens
from cove.models.agent import AGENT_PORT
from cove.models.errors import error
from cove.models.previews import PreviewAccess, PreviewTerms
from cove.models.stored import StoredEvent, StoredSandbox


@dataclass(frozen=True, slots=True)
class IssuedLink:
    """A link to one port of a sandbox.

    Attributes:
        expires_at: unix seconds.
    """

    sandbox: StoredSandbox
    port: int
    token: str
    expires_at: int


class Previews:
    """On behalf of principals, each with its own sandboxes."""

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        store: Store,
        directory: LiveDirectory,
        tokens: AgentTokens,
        audit: AuditTrail,
        background: Background,
        locks: KeyedLocks,
        clock: Clock,
    ) -> None:
        self._lifecycle = lifecycle
        self._store = store
        self._directory = directory
        self._tokens = tokens
        self._audit = audit
        self._background = background
        self._locks = locks
        self._clock = clock

    async def link(self, principal: Principal, sandbox_id: str, *, port: int, seconds: int) -> IssuedLink:
        """Make a link. It ends after so many seconds, with the key that it was made with, when the sandbox's links are
        revoked, and with the sandbox.

        Raises:
            CoveError: SANDBOX_NOT_FOUND; INVALID_REQUEST for the agent's own port.
        """
        if port == AGENT_PORT:
            raise error(
                "INVALID_REQUEST",
                f"Port {AGENT_PORT} is the agent's own: no link opens it.",
                remedy="Use the sandbox's token (auth_token) there.",
                field="port",
            )
        row = await self._lifecycle.get(principal, sandbox_id)
        now = self._clock()
        ends = now + seconds if principal.expires_at is None else min(now + seconds, principal.expires_at)
        token = self._tokens.issue_preview(row.id, port, epoch=row.preview_epoch, expires_at=int(ends))
        self._audit.repeated(principal.event("sandbox.link_issued", row.id, at=now, details={"port": port}))
        return IssuedLink(row, port, token, int(ends))

    async def set_access(self, principal: Principal, sandbox_id: str, access: PreviewAccess) -> StoredSandbox:
        """Change who may reach programs in a sandbox, from the next request on.

        Raises:
            CoveError: SANDBOX_NOT_FOUND.
        """
        return await self._changed(principal, sandbox_id, access=access)

    async def revoke(self, principal: Principal, sandbox_id: str) -> StoredSandbox:
        """End all links that were given out for a sandbox, from the next request on.

        Raises:
            CoveError: SANDBOX_NOT_FOUND.
        """
        return await self._changed(principal, sandbox_id, access=None)

    async def _changed(self, principal: Principal, sandbox_id: str, *, access: PreviewAccess | None) -> StoredSandbox:
        return await self._background.finish(
            self._change(principal, sandbox_id, access), name=f"previews {sandbox_id[:32]}"
        )

    async def _change(self, principal: Principal, sandbox_id: str, access: PreviewAccess | None) -> StoredSandbox:
        async with self._locks.hold(sandbox_id):
            row = await self._lifecycle.get(principal, sandbox_id)
            if access is None:
                terms = row.preview_terms._replace(epoch=row.preview_epoch + 1)
                event = principal.event("sandbox.links_revoked", row.id, at=self._clock())
            else:
                terms = row.preview_terms._replace(access=access)
                event = principal.event(
                    "sandbox.preview_access_changed", row.id, at=self._clock(), details={"access": access.value}
                )
            changed = await self._store.write(lambda work: _write(work, row.id, terms, event))
            if changed is None:
                return await self._lifecycle.get(principal, sandbox_id)
            self._directory.set_previews(row.id, changed.preview_terms)
            return changed


def _write(work: UnitOfWork, sandbox_id: str, terms: PreviewTerms, event: StoredEvent) -> StoredSandbox | None:
    row = work.sandboxes.set_previews(sandbox_id, terms)
    if row is not None:
        work.events.add(event)
    return row
