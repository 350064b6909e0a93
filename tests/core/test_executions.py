"""Asynchronous executions: begun at most once, delivered at least once, whatever ends in between."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.core.world import ALICE, BOB, World

from cove.core import executions as executions_module
from cove.core.executions import ShownExecution
from cove.core.storage import UnitOfWork
from cove.core.webhooks import WebhookMessage, WebhookOutcome
from cove.models.async_executions import DeliveryState, ExecuteAsync, ExecutionStatus
from cove.models.errors import CoveError, error
from cove.models.execution import ExecutionResult
from cove.models.processes import BackgroundExecute, BackgroundProcess, ProcessStatus
from cove.models.stored import StoredExecution
from cove.server.asynchronous import AsynchronousExecutions, build_executions
from cove.server.settings import Settings

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:9/hook"
NOW = "2027-01-15T08:00:00Z"
OK = WebhookOutcome(200, None)
BROKEN = WebhookOutcome(500, "The receiver answered 500.")


def ended(execution_id: str, **changes: Any) -> BackgroundProcess:
    """How an agent describes a program that has ended."""
    result = ExecutionResult(stdout="out\n", stderr="err\n", execution_time=0.25)
    facts: dict[str, Any] = {
        "process_id": "proc_1",
        "execution_id": execution_id,
        "status": ProcessStatus.COMPLETED,
        "language": "python",
        "start_time": NOW,
        "started_at": NOW,
        "exit_code": 0,
        "execution_time": 0.25,
        "result": result,
        **changes,
    }
    return BackgroundProcess(**facts)


class Guests:
    """The agents of all sandboxes: programs run until they are told how they end.

    Attributes:
        started: every program that began, by execution id; repeats begin nothing.
        refusals: raised by the next starts, one each, before anything has begun.
        lost_answers: so many of the next starts begin the program, and fail all the same.
        unreachable: nobody answers.
        watched: programs that someone has waited for.
    """

    def __init__(self) -> None:
        self.started: list[BackgroundExecute] = []
        self.calls = 0
        self.refusals: list[CoveError] = []
        self.lost_answers = 0
        self.unreachable = False
        self.ends: dict[str, BackgroundProcess] = {}
        self.forgotten: set[str] = set()
        self.watched: set[str] = set()
        self._changed = asyncio.Event()

    def end(self, execution_id: str, **changes: Any) -> None:
        """A program ends."""
        self.ends[execution_id] = ended(execution_id, **changes)
        self.change()

    def change(self) -> None:
        """Whoever waits looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def start(self, socket_path: Path, program: bytes, *, owner: str) -> None:
        self.calls += 1
        if self.unreachable:
            raise error("AGENT_UNREACHABLE", "nobody there")
        if self.refusals:
            raise self.refusals.pop(0)
        request = BackgroundExecute.model_validate_json(program)
        if request.execution_id not in {one.execution_id for one in self.started}:
            self.started.append(request)
        if self.lost_answers:
            self.lost_answers -= 1
            raise error("AGENT_UNREACHABLE", "the answer was lost")

    async def look(
        self, socket_path: Path, execution_id: str, *, owner: str, wait_seconds: float
    ) -> BackgroundProcess | None:
        if execution_id in self.forgotten:
            return None
        if execution_id not in self.ends and not self.unreachable:
            self.watched.add(execution_id)
            await self._changed.wait()
        if self.unreachable:
            raise error("AGENT_UNREACHABLE", "nobody there")
        return self.ends.get(execution_id) or ended(execution_id, status=ProcessStatus.RUNNING, result=None)


class Receivers:
    """All receivers: they note what they get, and answer what they are told to, in order; then with 200."""

    def __init__(self) -> None:
        self.got: list[WebhookMessage] = []
        self.outcomes: list[WebhookOutcome] = []
        self.slow: set[str] = set()
        self.in_hand: list[str] = []
        self.released = asyncio.Event()

    async def send(self, message: WebhookMessage) -> WebhookOutcome:
        if message.url in self.slow:
            self.in_hand.append(message.url)
            await self.released.wait()
        self.got.append(message)
        return self.outcomes.pop(0) if self.outcomes else OK

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in self.got]


class Scene:
    """A world with one sandbox, and asynchronous executions in it that can be restarted."""

    def __init__(self, world: World, sandbox_id: str) -> None:
        self.world = world
        self.sandbox_id = sandbox_id
        self.guests = Guests()
        self.receivers = Receivers()
        self.counted: list[str] = []
        self.running = self._build()

    def _build(self) -> AsynchronousExecutions:
        settings = Settings(data_dir=self.world.directory, webhook_allow=("127.0.0.1",))
        return build_executions(
            settings,
            self.world.store,
            self.world.engine.directory,
            count=self.counted.append,
            clock=self.world.clock,
            guests=self.guests,
            sender=self.receivers,
        )

    async def restart(self) -> None:
        """As after a SIGKILL: what the old one knew only in memory is lost."""
        await self.running.stop()
        self.running = self._build()
        await self.running.start()

    async def submit(self, code: str = "print('out')", **fields: Any) -> str:
        request = ExecuteAsync.model_validate({"code": code, "callback_url": URL, **fields})
        return (await self.running.executions.submit(self.sandbox_id, request)).execution_id

    async def row(self, execution_id: str) -> StoredExecution:
        row = await self.world.store.read(lambda work: work.executions.get(execution_id))
        assert row is not None
        return row

    async def until(self, execution_id: str, condition: Callable[[StoredExecution], bool]) -> StoredExecution:
        """Wait until the stored row is so; bounded."""
        async with asyncio.timeout(10):
            while not condition(row := await self.row(execution_id)):
                await asyncio.sleep(0.005)
        return row

    async def settled(self, execution_id: str) -> StoredExecution:
        return await self.until(execution_id, lambda row: row.delivery in _SETTLED)

    async def running_row(self, execution_id: str) -> StoredExecution:
        return await self.until(execution_id, lambda row: row.status is ExecutionStatus.RUNNING)

    async def tried(self, execution_id: str, times: int) -> StoredExecution:
        return await self.until(execution_id, lambda row: row.attempts >= times)

    def later(self, execution_id: str, seconds: float) -> None:
        """Time passes, for the clock and for whoever waits for it."""
        self.world.clock.now += seconds
        self.running.loop.follow(execution_id)


_SETTLED = {DeliveryState.DELIVERED, DeliveryState.UNDELIVERABLE}


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    made = Scene(world, (await world.create()).sandbox.id)
    yield made
    made.receivers.released.set()
    await made.running.stop()


async def test_a_program_is_run_and_its_result_delivered_and_signed(scene: Scene) -> None:
    execution_id = await scene.submit(
        timeout=7, env={"A": "1"}, callback_headers={"X-Mine": "yes"}, callback_signature_secret="hush"
    )
    await scene.running_row(execution_id)
    scene.guests.end(execution_id)
    row = await scene.settled(execution_id)
    assert (row.status, row.delivery, row.attempts, row.exit_code) == ("completed", "delivered", 1, 0)
    request = scene.guests.started[0]
    assert (request.code, request.timeout, request.env) == ("print('out')", 7, {"A": "1"})
    message = scene.receivers.got[0]
    assert json.loads(message.body) == {
        "execution_id": execution_id,
        "sandbox_id": scene.sandbox_id,
        "status": "completed",
        "success": True,
        "stdout": "out\n",
        "stderr": "err\n",
        "exit_code": 0,
        "execution_time": 0.25,
        "timestamp": NOW,
        "language": "python",
        "stdout_truncated": False,
        "stderr_truncated": False,
        "attempt": 1,
    }
    headers = message.headers
    signed = headers["X-HopX-Timestamp"].encode() + message.body
    assert headers["X-HopX-Signature"] == "sha256=" + hmac.new(b"hush", signed, hashlib.sha256).hexdigest()
    assert (headers["X-Mine"], headers["Content-Type"]) == ("yes", "application/json")
    actions = [event.action for event in await scene.world.events() if event.subject == execution_id]
    assert actions == ["webhook.delivered", "execution.completed", "execution.started", "execution.queued"]
    assert scene.counted == ["delivered"]


@pytest.mark.parametrize(
    ("changes", "status", "code", "said"),
    [
        ({"status": ProcessStatus.FAILED, "exit_code": 3}, "failed", 3, "exit code 3"),
        ({"status": ProcessStatus.FAILED, "exit_code": 124, "timed_out": True}, "timeout", 124, "timeout"),
        ({"status": ProcessStatus.KILLED, "exit_code": 137}, "failed", 137, "killed"),
        ({"status": ProcessStatus.FAILED, "exit_code": None, "result": None}, "failed", -1, "exit code -1"),
        ({"exit_code": 2**40}, "failed", -1, "exit code"),
    ],
)
async def test_how_programs_end(scene: Scene, changes: dict[str, Any], status: str, code: int, said: str) -> None:
    execution_id = await scene.submit()
    scene.guests.end(execution_id, **changes)
    row = await scene.settled(execution_id)
    body = scene.receivers.bodies()[0]
    assert (row.status, body["status"], body["success"], body["exit_code"]) == (status, status, False, code)
    assert said in body["error"]


async def test_output_is_cut_to_size_and_the_cut_is_marked(scene: Scene) -> None:
    execution_id = await scene.submit()
    huge = ExecutionResult(stdout="ä" * 2_000_000, stderr="e", stderr_truncated=True)
    scene.guests.end(execution_id, result=huge)
    await scene.settled(execution_id)
    body = scene.receivers.bodies()[0]
    assert len(body["stdout"].encode()) == 1024 * 1024
    assert (body["stdout_truncated"], body["stderr_truncated"]) == (True, True)


async def test_a_webhook_that_fails_is_tried_again_later_and_later(scene: Scene) -> None:
    scene.receivers.outcomes = [BROKEN, WebhookOutcome(None, "There was no answer within 10 s."), BROKEN]
    execution_id = await scene.submit(callback_signature_secret="s")
    scene.guests.end(execution_id)
    pauses: list[float] = []
    for attempt in (1, 2, 3):
        row = await scene.tried(execution_id, attempt)
        assert (row.delivery, row.delivered_at) == ("pending", None)
        pauses.append((row.next_attempt_at or 0) - scene.world.clock.now)
        scene.later(execution_id, pauses[-1])
    row = await scene.settled(execution_id)
    assert (row.delivery, row.attempts) == ("delivered", 4)
    assert [pause / usual for pause, usual in zip(pauses, (1, 5, 30), strict=True)] == pytest.approx([1, 1, 1], abs=0.2)
    assert [body["attempt"] for body in scene.receivers.bodies()] == [1, 2, 3, 4]
    assert len({message.headers["X-HopX-Delivery"] for message in scene.receivers.got}) == 1
    assert len({message.headers["X-HopX-Timestamp"] for message in scene.receivers.got}) >= 3
    assert len({message.headers["X-HopX-Signature"] for message in scene.receivers.got}) == 4
    assert scene.counted == ["retried", "retried", "retried", "delivered"]


async def test_a_webhook_is_given_up_after_a_day(scene: Scene) -> None:
    scene.receivers.outcomes = [BROKEN] * 100
    execution_id = await scene.submit()
    scene.guests.end(execution_id)
    began = scene.world.clock.now
    row = await scene.tried(execution_id, 1)
    while row.delivery is DeliveryState.PENDING:
        scene.later(execution_id, (row.next_attempt_at or 0) - scene.world.clock.now)
        row = await scene.tried(execution_id, row.attempts + 1)
    assert (row.delivery, row.next_attempt_at) == ("undeliverable", None)
    assert 22 * 3600 < scene.world.clock.now - began <= 24 * 3600
    assert 20 < row.attempts < 40
    assert (await scene.world.events())[0].action == "webhook.undeliverable"


async def test_a_receiver_that_is_gone_is_asked_no_more(scene: Scene) -> None:
    scene.receivers.outcomes = [WebhookOutcome(410, "The receiver answered 410.")]
    execution_id = await scene.submit()
    scene.guests.end(execution_id)
    row = await scene.settled(execution_id)
    assert (row.delivery, row.attempts, row.last_error) == ("undeliverable", 1, "The receiver answered 410.")


async def test_redelivery(scene: Scene) -> None:
    executions = scene.running.executions
    execution_id = await scene.submit()
    with pytest.raises(CoveError, match="not ended yet"):
        await executions.redeliver(ALICE, execution_id)
    scene.receivers.outcomes = [OK, BROKEN]
    scene.guests.end(execution_id)
    await scene.settled(execution_id)
    shown = await executions.redeliver(ALICE, execution_id)
    assert shown.row.delivery is DeliveryState.PENDING
    await scene.tried(execution_id, 2)
    # It waits for its next attempt now: a redelivery makes it sooner.
    await executions.redeliver(ALICE, execution_id)
    row = await scene.until(execution_id, lambda row: row.delivery is DeliveryState.DELIVERED and row.attempts == 3)
    assert row.status is ExecutionStatus.COMPLETED
    assert len(scene.guests.started) == 1


async def test_each_tenant_sees_his_own(scene: Scene) -> None:
    executions = scene.running.executions
    ids = [await scene.submit() for _ in range(3)]
    seen: list[ShownExecution] = []
    cursor = None
    for _ in range(3):
        page = await executions.list(ALICE, limit=2, cursor=cursor, sandbox_id=scene.sandbox_id)
        seen += page.executions
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(one.row.id for one in seen) == sorted(ids)
    assert {one.callback_url for one in seen} == {URL}
    assert (await executions.list(BOB, limit=10)).executions == ()
    assert (await executions.list(ALICE, limit=10, sandbox_id="nonsense")).executions == ()
    for call in (executions.get, executions.redeliver):
        with pytest.raises(CoveError) as caught:
            await call(BOB, ids[0])
        assert caught.value.code == "EXECUTION_NOT_FOUND"
    for cursor in ("x", "MTc2IDE3NjMzODIwOTVpNjQ4dXUxbw"):
        with pytest.raises(CoveError, match="cursor"):
            await executions.list(ALICE, limit=10, cursor=cursor)


@pytest.mark.parametrize("moment", ["queued", "starting", "running", "undelivered"])
async def test_a_server_that_is_killed_goes_on_where_it_was(scene: Scene, moment: str) -> None:
    guests, receivers = scene.guests, scene.receivers
    if moment == "queued":
        scene.world.engine.directory.remove(scene.sandbox_id)
    guests.unreachable = moment == "starting"
    execution_id = await scene.submit()
    if moment in ("queued", "starting"):
        await scene.until(execution_id, lambda row: row.status is ExecutionStatus(moment))
    elif moment == "running":
        await scene.running_row(execution_id)
    else:
        receivers.outcomes = [BROKEN]
        guests.end(execution_id)
        await scene.tried(execution_id, 1)
    if moment == "queued":
        await scene.world.restart()
        await scene.world.engine.reconciler.try_pass()
    guests.unreachable = False
    await scene.restart()
    guests.end(execution_id)
    scene.later(execution_id, 10)
    row = await scene.settled(execution_id)
    assert (row.status, row.delivery) == ("completed", "delivered")
    assert [one.execution_id for one in guests.started] == [execution_id]


async def test_an_answer_that_was_lost_begins_nothing_twice(scene: Scene) -> None:
    scene.guests.lost_answers = 2
    execution_id = await scene.submit()
    await scene.running_row(execution_id)
    scene.guests.end(execution_id)
    await scene.settled(execution_id)
    assert (scene.guests.calls, len(scene.guests.started)) == (3, 1)


async def test_a_busy_sandbox_takes_the_program_later(scene: Scene) -> None:
    scene.guests.refusals = [error("RESOURCE_LIMIT_EXCEEDED", "64 programs run")]
    execution_id = await scene.submit()
    scene.guests.end(execution_id)
    assert (await scene.settled(execution_id)).status is ExecutionStatus.COMPLETED
    assert scene.guests.calls == 2


async def test_a_sandbox_that_refuses_the_program_is_told_of(scene: Scene) -> None:
    scene.guests.refusals = [error("UNSUPPORTED_LANGUAGE", "This sandbox does not run 'go'.")]
    execution_id = await scene.submit(language="golang")
    row = await scene.settled(execution_id)
    assert (row.status, row.language) == ("failed", "go")
    assert scene.receivers.bodies()[0]["error"] == "The program was not started: This sandbox does not run 'go'."


@pytest.mark.parametrize("running", [False, True])
async def test_the_end_of_the_sandbox_is_the_end_of_its_programs(scene: Scene, running: bool) -> None:
    scene.guests.unreachable = not running
    execution_id = await scene.submit()
    if running:
        await scene.running_row(execution_id)
    await scene.world.engine.lifecycle.delete(ALICE, scene.sandbox_id)
    scene.guests.unreachable = True
    scene.guests.change()
    row = await scene.settled(execution_id)
    assert (row.status, row.delivery) == ("failed", "delivered")
    assert "killed" in scene.receivers.bodies()[0]["error"]


async def test_a_sandbox_that_is_stopped_begins_nothing_again_when_it_is_started(scene: Scene) -> None:
    scene.guests.lost_answers = 10**6
    execution_id = await scene.submit()
    await scene.until(execution_id, lambda row: row.status is ExecutionStatus.STARTING and bool(scene.guests.calls))
    await scene.world.engine.lifecycle.stop(ALICE, scene.sandbox_id)
    await scene.world.engine.lifecycle.start(ALICE, scene.sandbox_id)
    row = await scene.settled(execution_id)
    assert row.status is ExecutionStatus.FAILED
    assert "stopped" in scene.receivers.bodies()[0]["error"]
    assert len(scene.guests.started) == 1


async def test_a_paused_sandbox_keeps_the_program_waiting(scene: Scene) -> None:
    await scene.world.engine.lifecycle.pause(ALICE, scene.sandbox_id)
    execution_id = await scene.submit()
    scene.guests.end(execution_id)
    await scene.world.engine.lifecycle.resume(ALICE, scene.sandbox_id)
    assert (await scene.settled(execution_id)).status is ExecutionStatus.COMPLETED


async def test_an_agent_that_forgot_or_never_ends_a_program(scene: Scene) -> None:
    forgotten, endless = await scene.submit(timeout=80_000), await scene.submit(timeout=5)
    for execution_id in (forgotten, endless):
        await scene.until(execution_id, lambda row: row.id in scene.guests.watched)
    scene.guests.forgotten.add(forgotten)
    scene.world.clock.now += 3600
    scene.guests.change()
    for execution_id, said in ((forgotten, "does not know"), (endless, "did not end the program at its timeout")):
        assert (await scene.settled(execution_id)).status is ExecutionStatus.FAILED
        assert any(said in body["error"] for body in scene.receivers.bodies() if body["execution_id"] == execution_id)


async def test_slow_receivers_keep_only_themselves_waiting(scene: Scene) -> None:
    slow = [f"http://127.0.0.1:9/{number}" for number in range(12)]
    scene.receivers.slow = set(slow)
    for url in slow:
        scene.guests.end(await scene.submit(callback_url=url))
    async with asyncio.timeout(10):
        while len(scene.receivers.in_hand) < 4:
            await asyncio.sleep(0.005)
    other = await scene.submit(callback_url="http://127.0.0.1.:9/")
    quick = await scene.submit(callback_url="http://[::ffff:127.0.0.1]/")
    scene.guests.end(quick)
    await scene.settled(quick)
    assert len(scene.receivers.in_hand) == 4
    scene.guests.end(other)
    scene.receivers.released.set()
    await scene.settled(other)


async def test_bounds_of_a_tenant(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions_module, "MAX_OPEN_OF_NAMESPACE", 2)
    first = await scene.submit()
    await scene.submit()
    with pytest.raises(CoveError, match="limit of this namespace of 2") as caught:
        await scene.submit()
    assert caught.value.code == "RESOURCE_LIMIT_EXCEEDED"
    scene.guests.end(first)
    await scene.settled(first)
    await scene.submit()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"language": "cobol"}, "UNSUPPORTED_LANGUAGE"),
        ({"callback_url": "http://10.0.0.1/"}, "INVALID_REQUEST"),
        ({"code": "é" * (2 * 1024 * 1024 + 1)}, "REQUEST_TOO_LARGE"),
    ],
)
async def test_what_is_refused_at_once_leaves_nothing(scene: Scene, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(CoveError) as caught:
        await scene.submit(**fields)
    assert caught.value.code == code
    assert await scene.world.store.read(lambda work: work.executions.open_ids()) == ()


async def test_a_sandbox_that_is_gone_takes_none(scene: Scene) -> None:
    await scene.world.engine.lifecycle.delete(ALICE, scene.sandbox_id)
    with pytest.raises(CoveError) as caught:
        await scene.submit()
    assert caught.value.code == "SANDBOX_NOT_FOUND"


async def test_the_store_shows_nothing_without_the_key(scene: Scene) -> None:
    execution_id = await scene.submit(
        "print('confided code')", callback_signature_secret="confided secret", env={"X": "confided value"}
    )
    scene.guests.end(execution_id, result=ExecutionResult(stdout="confided output"))
    await scene.settled(execution_id)
    files = [path.read_bytes() for path in scene.world.directory.glob("cove.db*")]
    assert files
    assert not any(b"confided" in content for content in files)


async def test_without_the_key_webhooks_wait_for_it(scene: Scene) -> None:
    scene.receivers.outcomes = [BROKEN]
    execution_id = await scene.submit()
    scene.guests.end(execution_id)
    await scene.tried(execution_id, 1)
    key = scene.world.directory / "keys" / "executions.key"
    right = key.read_bytes()
    key.write_bytes(bytes(32))
    await scene.restart()
    scene.later(execution_id, 10)
    row = await scene.tried(execution_id, 2)
    assert "another key" in (row.last_error or "")
    assert (await scene.running.executions.get(ALICE, execution_id)).callback_url == ""
    key.write_bytes(right)
    await scene.restart()
    scene.later(execution_id, 10)
    assert (await scene.settled(execution_id)).delivery is DeliveryState.DELIVERED


async def test_old_results_make_room_for_new_ones(scene: Scene) -> None:
    ids = [await scene.submit() for _ in range(4)]
    for execution_id in ids[:3]:
        scene.guests.end(execution_id)
        await scene.settled(execution_id)
        scene.world.clock.now += 1
    size = (await scene.row(ids[0])).result_bytes

    def trim(records: int, result_bytes: int) -> Callable[[UnitOfWork], None]:
        return lambda work: work.executions.trim("default", records=records, result_bytes=result_bytes)

    await scene.world.store.write(trim(10, 2 * size + 10))
    assert [(await scene.row(one)).result_bytes > 0 for one in ids[:3]] == [False, True, True]
    with pytest.raises(CoveError, match="not kept any more"):
        await scene.running.executions.redeliver(ALICE, ids[0])
    await scene.world.store.write(trim(2, 10**9))
    kept = await scene.running.executions.list(ALICE, limit=10)
    assert {one.row.id for one in kept.executions} == {ids[2], ids[3]}


async def test_what_is_over_is_forgotten_after_a_week(scene: Scene) -> None:
    done, open_one = await scene.submit(), await scene.submit()
    scene.guests.end(done)
    row = await scene.settled(done)
    late = (row.ended_at or 0) + 1
    assert await scene.world.store.write(lambda work: work.executions.prune(ended_before=late)) == 1
    left = await scene.running.executions.list(ALICE, limit=10)
    assert [one.row.id for one in left.executions] == [open_one]
