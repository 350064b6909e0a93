"""Delivering webhooks: at least once each, a few at a time for each tenant and for each receiver."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog

from cove.core.background import Background
from cove.core.clock import Clock
from cove.core.principal import SYSTEM_ACTOR
from cove.core.slots import KeyedSlots
from cove.core.storage import Store, UnitOfWork
from cove.core.webhooks import Callback, WebhookOutcome, WebhookSender, compose, pause_after
from cove.keys.sealing import Sealer
from cove.models.async_executions import CallbackBody, DeliveryState
from cove.models.errors import CoveError
from cove.models.stored import ExecutionPart, StoredEvent, StoredExecution

_AT_ONCE = 32
_OF_ONE_TENANT = 8
_TO_ONE_HOST = 4
_MAX_FAILURE_CHARACTERS = 500


class WebhookDeliveries:
    """Takes webhooks one attempt further at a time.

    An attempt that has begun is finished and noted even if its caller is cancelled, unless the server ends first: then
    it is repeated by the next one.
    """

    def __init__(
        self,
        store: Store,
        *,
        sender: WebhookSender,
        sealer: Sealer,
        background: Background,
        count: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._store = store
        self._sender = sender
        self._sealer = sealer
        self._background = background
        self._count = count
        self._clock = clock
        self._tenants = KeyedSlots(_OF_ONE_TENANT)
        self._hosts = KeyedSlots(_TO_ONE_HOST)
        self._all = asyncio.Semaphore(_AT_ONCE)
        self._log = structlog.get_logger("cove.webhooks")

    async def step(self, row: StoredExecution) -> float:
        """Make an attempt if it is due; seconds until the next step makes sense.

        Raises:
            CoveError: STORE_UNAVAILABLE.
        """
        due_in = (row.next_attempt_at or 0.0) - self._clock()
        if due_in > 0:
            return due_in
        try:
            await self._in_turn(row)
        except CoveError as failure:
            if failure.code != "INTERNAL_ERROR":
                raise
            # Not readable with this key; whoever runs the server may put the right one back.
            await self._note(row, row.attempts + 1, WebhookOutcome(None, failure.message))
        return 0.0

    async def _in_turn(self, row: StoredExecution) -> None:
        """Wait for the receiver's turn first: those that wait for a slow one take nothing from the tenant's others."""
        host = _host_of((await self._callback(row)).url)
        async with self._hosts.hold(f"{row.namespace} {host}"), self._tenants.hold(row.namespace), self._all:
            await self._background.finish(self._attempt(row), name=f"webhook {row.id}")

    async def _attempt(self, row: StoredExecution) -> None:
        callback = await self._callback(row)
        result = CallbackBody.model_validate_json(await self._opened(row, ExecutionPart.RESULT))
        attempt = row.attempts + 1
        message = compose(callback, result, owner=row.namespace, attempt=attempt, now=self._clock())
        await self._note(row, attempt, await self._sender.send(message))

    async def _note(self, row: StoredExecution, attempt: int, outcome: WebhookOutcome) -> None:
        now = self._clock()
        again = now + pause_after(attempt)
        delivery, next_at = DeliveryState.PENDING, again
        if outcome.final or again > (row.deliver_until or 0.0):
            next_at = None
            delivery = DeliveryState.DELIVERED if outcome.delivered else DeliveryState.UNDELIVERABLE
        failure = None if outcome.failure is None else outcome.failure[:_MAX_FAILURE_CHARACTERS]

        def work(unit: UnitOfWork) -> None:
            unit.executions.note_attempt(row.id, delivery=delivery, at=now, failure=failure, next_at=next_at)
            if delivery is not DeliveryState.PENDING:
                unit.events.add(_event(row, delivery, attempt, now))

        await self._store.write(work)
        self._count("retried" if delivery is DeliveryState.PENDING else delivery.value)
        self._log.info(
            "webhook_attempt", execution_id=row.id, attempt=attempt, delivery=delivery.value, failure=failure
        )

    async def _callback(self, row: StoredExecution) -> Callback:
        return Callback.model_validate_json(await self._opened(row, ExecutionPart.CALLBACK))

    async def _opened(self, row: StoredExecution, part: ExecutionPart) -> bytes:
        sealed = await self._store.read(lambda work: work.executions.part(row.id, part))
        return self._sealer.open(f"{row.id}/{part}", sealed or b"")


def _host_of(url: str) -> str:
    return (urlsplit(url).hostname or "").lower().removesuffix(".")


def _event(row: StoredExecution, delivery: DeliveryState, attempt: int, at: float) -> StoredEvent:
    return StoredEvent(
        at=at,
        namespace=row.namespace,
        actor=SYSTEM_ACTOR,
        action=f"webhook.{delivery}",
        subject=row.id,
        details={"sandbox_id": row.sandbox_id, "attempts": attempt},
    )
