"""Whatever happens in whatever order: nothing is orphaned, and the list is the truth."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from tests.core.world import ALICE, BOB, World

from cove.core.states import TRANSITIONS, Action
from cove.models.errors import CoveError, error
from cove.models.sandboxes import SandboxStatus
from cove.store.database import Database

T = TypeVar("T")
SWITCHES = (Action.PAUSE, Action.RESUME, Action.STOP, Action.START)


def _empty_store() -> bytes:
    """A migrated database, made once: each example starts from a copy."""
    directory = Path(tempfile.mkdtemp(prefix="cove-"))

    async def make() -> None:
        async with Database.at_path(directory / "cove.db"):
            pass

    asyncio.run(make())
    content = (directory / "cove.db").read_bytes()
    shutil.rmtree(directory)
    return content


class LifecycleMachine(RuleBasedStateMachine):
    """The model: which sandboxes live, with deadline and state."""

    sandboxes: Bundle[str] = Bundle("sandboxes")
    empty: bytes = b""

    def __init__(self) -> None:
        super().__init__()
        type(self).empty = self.empty or _empty_store()
        self.directory = Path(tempfile.mkdtemp(prefix="cove-"))
        (self.directory / "cove.db").write_bytes(self.empty)
        self.runner = asyncio.Runner()
        self.world = self.do(self._open())
        self.live: dict[str, float | None] = {}
        self.status: dict[str, SandboxStatus] = {}

    async def _open(self) -> World:
        world = World(self.directory, sockets=False)
        await world.open()
        return world

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(10):
                return await work

        return self.runner.run(bounded())

    def attempt(self, work: Coroutine[Any, Any, Any]) -> str | None:
        """Do it; the error's code if it is refused."""
        try:
            self.do(work)
        except CoveError as failure:
            return failure.code
        return None

    @rule(target=sandboxes, timeout=st.sampled_from([0, 1, 60, 3600]))
    def create(self, timeout: int) -> str:
        made = self.do(self.world.create(timeout_seconds=timeout)).sandbox
        self.live[made.id] = made.deadline
        self.status[made.id] = SandboxStatus.RUNNING
        return made.id

    @rule(code=st.sampled_from(["SANDBOX_START_FAILED", "HOST_UNAVAILABLE", "DISK_FULL"]))
    def create_that_fails(self, code: str) -> None:
        self.world.host.driver.failures.append(error(code, "Injected."))
        assert self.attempt(self.world.create()) == code

    @rule()
    def create_that_is_lost(self) -> None:
        self.world.host.created_then_lost = 1
        assert self.attempt(self.world.create()) == "HOST_UNAVAILABLE"

    @rule(which=sandboxes)
    def kill(self, which: str) -> None:
        code = self.attempt(self.world.engine.lifecycle.delete(ALICE, which))
        assert code == (None if which in self.live else "SANDBOX_NOT_FOUND")
        self._gone(which)

    @rule(which=sandboxes)
    def kill_by_a_stranger(self, which: str) -> None:
        assert self.attempt(self.world.engine.lifecycle.delete(BOB, which)) == "SANDBOX_NOT_FOUND"

    @rule(which=sandboxes)
    def kill_while_the_host_refuses(self, which: str) -> None:
        self.world.host.refuse_destroy = True
        code = self.attempt(self.world.engine.lifecycle.delete(ALICE, which))
        self.world.host.refuse_destroy = False
        assert code == ("HOST_UNAVAILABLE" if which in self.live else "SANDBOX_NOT_FOUND")
        self._gone(which)
        self.do(self.world.engine.reconciler.reconcile())

    @rule(which=sandboxes, seconds=st.sampled_from([0, 5, 100]))
    def set_timeout(self, which: str, seconds: int) -> None:
        code = self.attempt(self.world.engine.lifecycle.set_timeout(ALICE, which, seconds))
        assert code == (None if which in self.live else "SANDBOX_NOT_FOUND")
        if which in self.live:
            self.live[which] = self.world.clock.now + seconds if seconds else None

    @rule(which=sandboxes, action=st.sampled_from(SWITCHES))
    def switch(self, which: str, action: Action) -> None:
        transition = TRANSITIONS[action]
        code = self.attempt(getattr(self.world.engine.lifecycle, action.value)(ALICE, which))
        if which not in self.live:
            assert code == "SANDBOX_NOT_FOUND"
        elif self.status[which] in transition.sources:
            assert code is None
            self.status[which] = transition.target
        else:
            assert code == "INVALID_STATE"

    @rule(which=sandboxes, action=st.sampled_from(SWITCHES))
    def switch_while_the_host_is_away(self, which: str, action: Action) -> None:
        self.world.host.down = True
        self.attempt(getattr(self.world.engine.lifecycle, action.value)(ALICE, which))
        self.world.host.down = False

    @rule(which=sandboxes, action=st.sampled_from(SWITCHES))
    def switch_that_the_server_does_not_survive(self, which: str, action: Action) -> None:
        """The host has carried it out, the row says nothing of it yet."""
        if which in self.live and self.status[which] in TRANSITIONS[action].sources:
            if self.status[which] is not TRANSITIONS[action].target:
                host, more = self.world.host, ({"A": "b"},) if action is Action.STOP else ()
                self.do(getattr(host, action.value)(which, *more))
            self.do(self.world.restart())
            self.do(self.world.engine.reconciler.reconcile())
            self.status[which] = TRANSITIONS[action].target

    @rule(seconds=st.sampled_from([1, 10, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.now += seconds
        for which in self.world.engine.deadlines.due():
            self.do(self.world.engine.lifecycle.expire(which))
        now = self.world.clock.now
        for which, deadline in list(self.live.items()):
            if deadline is not None and deadline <= now:
                self._gone(which)

    @rule(which=consumes(sandboxes))
    def crash(self, which: str) -> None:
        if which in self.live:
            self.world.host.crash(which)
            self._gone(which)
        self.do(self.world.engine.reconciler.reconcile())

    @rule()
    def server_is_killed_and_starts_again(self) -> None:
        self.do(self.world.restart())
        self.do(self.world.engine.reconciler.reconcile())

    @rule()
    def host_is_away_for_a_while(self) -> None:
        self.world.host.down = True
        self.do(self.world.engine.reconciler.try_pass())
        assert self.attempt(self.world.create()) == "HOST_UNAVAILABLE"
        self.world.host.down = False
        self.do(self.world.engine.reconciler.try_pass())

    @invariant()
    def list_is_the_truth(self) -> None:
        shown = self.do(self.world.engine.lifecycle.list(ALICE, limit=1000)).sandboxes
        assert {row.id: row.deadline for row in shown} == self.live
        assert {row.id: row.status for row in shown} == self.status

    @invariant()
    def nothing_is_orphaned(self) -> None:
        assert self.world.host.ids == self.live.keys()
        assert self.world.engine.directory.ids() == self.live.keys()
        for which, deadline in self.live.items():
            record = self.world.host.driver.sandboxes[which].record
            assert record.deadline == deadline
            assert record.state.value == self.status[which].value
            assert self.world.engine.directory.state_of(which) is self.status[which]

    def teardown(self) -> None:
        self.do(self.world.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    def _gone(self, which: str) -> None:
        self.live.pop(which, None)
        self.status.pop(which, None)


TestLifecycle = LifecycleMachine.TestCase
TestLifecycle.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
