"""The warm pool: sandboxes that are started before anyone asks for them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import structlog

from cove.core.enforcement import Unenforced
from cove.core.ports import Host
from cove.models.errors import CoveError
from cove.models.hosts import HostState, SandboxRecord, SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.isolation import Isolation
from cove.models.limits import Limits

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_HOLD_BACK_SECONDS = 0.01
_DESTROY_SECONDS = 10.0


Rehearsal = Callable[[SandboxRecord], Awaitable[None]]
"""Has a new member touch what its first execution will; raises CoveError when its agent does not answer."""


class WarmPool:
    """Keeps so many members of each template ready. A create takes one if there is one, and never waits for it.

    Members run on the default limits and isolation, have no deadline and no environment of their own; they are
    no sandboxes of the store until they are claimed.
    """

    def __init__(
        self,
        host: Host,
        *,
        targets: Mapping[str, int],
        limits: Limits,
        isolation: Isolation | None,
        must_hold: frozenset[str] = frozenset(),
        unenforced: Unenforced | None = None,
        rehearse: Rehearsal,
        concurrency: int = 1,
        create_seconds: float = 60.0,
    ) -> None:
        self._host = host
        self._targets = {template: size for template, size in targets.items() if size > 0}
        self._limits = limits
        self._isolation = isolation
        self._must_hold = must_hold
        self._unenforced = unenforced or Unenforced()
        self._rehearse = rehearse
        self._concurrency = concurrency
        self._create_seconds = create_seconds
        self._members: dict[str, deque[SandboxRecord]] = {template: deque() for template in self._targets}
        self._starting: dict[str, str] = {}
        self._digests: Mapping[str, str] = {}
        self._wake = asyncio.Event()
        self._closed = False
        self._log = structlog.get_logger("cove.pool")

    def take(self, template: str) -> SandboxRecord | None:
        """A member, which is the caller's from now on; None when the pool is empty."""
        members = self._members.get(template)
        if not members:
            return None
        self._wake.set()
        return members.popleft()

    def sizes(self) -> Mapping[str, int]:
        """How many members of each template are ready."""
        return {template: len(members) for template, members in self._members.items()}

    def owns(self, sandbox_id: str) -> bool:
        """Whether this is a member, or is about to become one."""
        return sandbox_id in self._starting or sandbox_id in self.members()

    def members(self) -> frozenset[str]:
        """The ids of all that are ready."""
        return frozenset(member.sandbox_id for members in self._members.values() for member in members)

    def learn(self, digests: Mapping[str, str]) -> None:
        """Learn which templates are built (name -> digest): others get no members."""
        self._digests = digests
        self._wake.set()

    def adopt(self, record: SandboxRecord) -> bool:
        """Take in a member that an earlier server started, if it fits and there is room."""
        if self._closed or not self._fits(record) or self._lack(record.template) <= 0:
            return False
        self._members[record.template].append(record)
        return True

    def observe(self, records: Mapping[str, SandboxRecord], *, asked_about: frozenset[str]) -> None:
        """Learn what the host has: drop those of the members `asked_about` that died or whose template was built anew.

        Members that are dropped but live are destroyed by the reconciler, since nobody owns them any more.
        """
        for members in self._members.values():
            kept = [
                member
                for member in members
                if member.sandbox_id not in asked_about or self._fits(records.get(member.sandbox_id))
            ]
            members.clear()
            members.extend(kept)
        self._wake.set()

    async def run(self) -> None:
        """Fill the pool again whenever members are taken, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._refill())

    async def close(self) -> None:
        """Destroy all members; bounded in time. What is left is swept by the next server's reconciler."""
        self._closed = True
        doomed = [member.sandbox_id for members in self._members.values() for member in members]
        for members in self._members.values():
            members.clear()
        await asyncio.gather(*(self._destroy(sandbox_id) for sandbox_id in doomed))

    def _fits(self, record: SandboxRecord | None) -> bool:
        if record is None or record.template not in self._targets or record.state is not HostState.RUNNING:
            return False
        if record.limits != self._limits or (self._isolation is not None and record.isolation != self._isolation):
            return False
        current = self._digests.get(record.template)
        return record.pooled and (not record.template_digest or record.template_digest == current)

    def _missing(self) -> str | None:
        """The template that lacks the most members, or None."""
        if self._closed:
            return None
        lacking = {template: self._lack(template) for template in self._targets if template in self._digests}
        template = max(lacking, key=lambda name: lacking[name], default=None)
        return template if template is not None and lacking[template] > 0 else None

    def _lack(self, template: str) -> int:
        starting = sum(name == template for name in self._starting.values())
        return self._targets[template] - len(self._members[template]) - starting

    async def _refill(self) -> None:
        pause = 0.0
        while True:
            template = self._missing()
            if template is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._hold_back(template)
            if await self._add_member(template):
                pause = 0.0
                continue
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2 or _FIRST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _hold_back(self, template: str) -> None:
        """While enough members are left, let the create that took one have the processors first."""
        if len(self._members[template]) * 2 > self._targets[template]:
            await asyncio.sleep(_HOLD_BACK_SECONDS)

    async def _add_member(self, template: str) -> bool:
        if self._missing() is None:
            return True
        sandbox_id = new_sandbox_id()
        spec = SandboxSpec(
            sandbox_id=sandbox_id,
            template=template,
            isolation=self._isolation,
            limits=self._limits,
            pooled=True,
            required_limits=self._must_hold,
        )
        self._starting[sandbox_id] = template
        try:
            async with asyncio.timeout(self._create_seconds):
                record = await self._host.create(spec)
                self._unenforced.note(record)
                await self._rehearse(record)
            if self._closed:
                await self._destroy(sandbox_id)
            else:
                self._members[template].append(record)
            return True
        except (CoveError, TimeoutError) as failure:
            self._log.warning("pool_member_failed", template=template, error=str(failure) or type(failure).__name__)
            await self._destroy(sandbox_id)
            return False
        except asyncio.CancelledError:
            await self._destroy(sandbox_id)
            raise
        finally:
            del self._starting[sandbox_id]

    async def _destroy(self, sandbox_id: str) -> None:
        try:
            async with asyncio.timeout(_DESTROY_SECONDS):
                await self._host.destroy(sandbox_id)
        except (CoveError, TimeoutError) as failure:
            self._log.warning("pool_member_left", sandbox_id=sandbox_id, error=str(failure) or type(failure).__name__)
