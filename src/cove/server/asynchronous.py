"""Asynchronous executions, put together from core's parts and what the server has for them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cove.core.background import Background
from cove.core.clock import Clock
from cove.core.directory import LiveDirectory
from cove.core.execution_loop import ExecutionLoop, PacedStore
from cove.core.executions import Executions
from cove.core.program_steps import GuestPrograms, ProgramSteps
from cove.core.storage import Store
from cove.core.webhook_deliveries import WebhookDeliveries
from cove.core.webhook_targets import AllowList, WebhookTargets
from cove.core.webhooks import WebhookSender
from cove.keys.sealing import Sealer
from cove.server.guest_programs import AgentPrograms
from cove.server.name_resolution import SystemResolver
from cove.server.settings import Settings
from cove.server.webhook_delivery import HttpWebhookSender


def execution_key_path(data_dir: Path) -> Path:
    """Where the key that seals programs, callbacks and results is kept."""
    return data_dir / "keys" / "executions.key"


@dataclass(frozen=True, slots=True)
class AsynchronousExecutions:
    """All of it; `loop` is started after the store and the sandboxes are there, and stopped before them."""

    executions: Executions
    loop: ExecutionLoop
    resolver: SystemResolver

    async def start(self) -> None:
        """Go on with what an earlier server left.

        Raises:
            CoveError: STORE_UNAVAILABLE.
        """
        await self.loop.start()

    async def stop(self) -> None:
        """Let go of it; what has not ended or been delivered waits in the store."""
        await self.loop.stop()
        self.resolver.close()


def build_executions(
    settings: Settings,
    store: Store,
    directory: LiveDirectory,
    *,
    count: Callable[[str], None],
    clock: Clock,
    guests: GuestPrograms | None = None,
    sender: WebhookSender | None = None,
) -> AsynchronousExecutions:
    """Put it together; nothing is started yet. `count` hears of each attempt's outcome.

    Raises:
        CoveError: INTERNAL_ERROR when the key file holds something else than a key.
    """
    sealer = Sealer.load(execution_key_path(settings.data_dir))
    resolver = SystemResolver()
    targets = WebhookTargets(resolver, AllowList.of(settings.webhook_allow))
    paced, background = PacedStore(store), Background()
    programs = ProgramSteps(
        paced,
        guests=guests or AgentPrograms(),
        directory=directory,
        sealer=sealer,
        clock=clock,
        give_up_seconds=settings.webhook_give_up_seconds,
    )
    deliveries = WebhookDeliveries(
        paced,
        sender=sender or HttpWebhookSender(targets),
        sealer=sealer,
        background=background,
        count=count,
        clock=clock,
    )
    loop = ExecutionLoop(paced, programs=programs, deliveries=deliveries, background=background)
    executions = Executions(
        store,
        loop=loop,
        targets=targets,
        sealer=sealer,
        clock=clock,
        give_up_seconds=settings.webhook_give_up_seconds,
    )
    return AsynchronousExecutions(executions, loop, resolver)
