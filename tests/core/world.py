"""A control plane without HTTP over a fake host, with a clock that tests set."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.core.fake_host import FakeHost

from cove.core.creation import Creation
from cove.core.engine import SandboxEngine
from cove.core.planning import CreationPolicy
from cove.core.principal import Principal
from cove.core.storage import Store
from cove.core.tokens import AgentTokens
from cove.keys.sealing import Sealer
from cove.models.quotas import UNLIMITED
from cove.models.sandboxes import CreateSandbox
from cove.models.stored import StoredEvent, StoredSandbox
from cove.server.guests import AgentEnvironment
from cove.store.database import Database

ALICE = Principal("default", "alice")
BOB = Principal("other", "bob")


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """The engine and what is around it. `restart` is what happens after a SIGKILL of the server."""

    def __init__(
        self, directory: Path, *, pool_size: int = 0, policy: CreationPolicy | None = None, sockets: bool = True
    ) -> None:
        self.directory = directory
        self.clock = Clock()
        self.host = FakeHost(directory, sockets=sockets)
        self.policy = policy or CreationPolicy(max_sandboxes=50, create_seconds=10.0)
        self.pool_size = pool_size
        self.namespace_quota = UNLIMITED
        self.key = Ed25519PrivateKey.generate()
        self.sealer = Sealer(bytes(32))
        self.database = Database.at_path(directory / "cove.db")
        self.store: Store = self.database
        self.engine = self._engine()

    def _engine(self) -> SandboxEngine:
        return SandboxEngine(
            self.host,
            self.store,
            tokens=AgentTokens(self.key, clock=self.clock),
            sealer=self.sealer,
            guests=AgentEnvironment(),
            policy=self.policy,
            pool_targets={"code-interpreter": self.pool_size},
            namespace_quota=self.namespace_quota,
            reconcile_seconds=0.05,
            clock=self.clock,
        )

    async def open(self) -> None:
        await self.database.open()
        await self.engine.catalog.load()
        await self.engine.catalog.refresh()

    async def close(self) -> None:
        self.host.hang.set()
        self.host.driver.gate.set()
        self.host.refuse_destroy = self.host.down = False
        await self.engine.stop()
        await self.host.driver.close()
        await self.database.close()

    async def restart(self) -> None:
        """A new engine over the same host and store: what the old one knew only in memory is lost."""
        self.engine = self._engine()
        await self.engine.catalog.load()

    async def create(self, principal: Principal = ALICE, /, **fields: object) -> Creation:
        request = CreateSandbox.model_validate({"template_name": "code-interpreter", **fields})
        return await self.engine.creator.create(principal, request)

    async def rows(self) -> dict[str, StoredSandbox]:
        return {row.id: row for row in await self.store.read(lambda unit: unit.sandboxes.live())}

    async def row(self, sandbox_id: str) -> StoredSandbox | None:
        return await self.store.read(lambda unit: unit.sandboxes.get(sandbox_id))

    async def events(self) -> tuple[StoredEvent, ...]:
        return await self.store.read(lambda unit: unit.events.recent(namespace="default"))


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait for a condition, bounded."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
