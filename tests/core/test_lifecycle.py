"""What can be done with sandboxes that exist."""

import asyncio
from pathlib import Path

import pytest
from tests.core.world import ALICE, BOB, World, until

from cove.core.planning import CreationPolicy
from cove.core.states import LIVE, TRANSITIONS, Action
from cove.models.errors import CoveError
from cove.models.identifiers import new_sandbox_id
from cove.models.sandboxes import EndReason, SandboxStatus

pytestmark = pytest.mark.anyio


def test_nothing_leads_out_of_deleted() -> None:
    for transition in TRANSITIONS.values():
        assert SandboxStatus.DELETED not in transition.sources
    assert TRANSITIONS[Action.DELETE].sources == LIVE
    assert set(TRANSITIONS) == set(Action)


async def test_a_killed_sandbox_is_gone_everywhere_and_its_tombstone_says_why(world: World) -> None:
    sandbox = (await world.create()).sandbox
    await world.engine.lifecycle.delete(ALICE, sandbox.id)
    assert world.host.ids == set()
    assert world.engine.directory.socket_of(sandbox.id) is None
    with pytest.raises(CoveError, match=r"Sandbox \w+ was not found: it was killed at 2027-01-15T08:00:00Z") as caught:
        await world.engine.lifecycle.get(ALICE, sandbox.id)
    assert caught.value.code == "SANDBOX_NOT_FOUND"
    assert caught.value.details["end_reason"] == "killed"
    assert (await world.events())[0].action == "sandbox.ended"
    with pytest.raises(CoveError, match="it was killed"):
        await world.engine.lifecycle.delete(ALICE, sandbox.id)


async def test_of_many_kills_one_counts(world: World) -> None:
    sandbox = (await world.create()).sandbox
    kills = [world.engine.lifecycle.delete(ALICE, sandbox.id) for _ in range(8)]
    answers = await asyncio.gather(*kills, return_exceptions=True)
    assert answers.count(None) >= 1
    assert {answer.code for answer in answers if isinstance(answer, CoveError)} <= {"SANDBOX_NOT_FOUND"}
    assert [event.action for event in await world.events()].count("sandbox.ended") == 1


async def test_a_kill_in_a_hurry_ends_it_for_everyone_before_the_host_has_freed_it(world: World) -> None:
    sandbox = (await world.create()).sandbox
    world.host.refuse_destroy = True
    assert not await world.engine.lifecycle.delete_soon(ALICE, sandbox.id)
    assert world.engine.directory.socket_of(sandbox.id) is None
    with pytest.raises(CoveError, match="it was killed"):
        await world.engine.lifecycle.get(ALICE, sandbox.id)
    assert world.host.ids == {sandbox.id}
    world.host.refuse_destroy = False
    await world.engine.lifecycle.delete(ALICE, sandbox.id)
    assert world.host.ids == set()


async def test_a_kill_that_the_host_did_not_hear_is_repeated(world: World) -> None:
    sandbox = (await world.create()).sandbox
    world.host.refuse_destroy = True
    with pytest.raises(CoveError) as caught:
        await world.engine.lifecycle.delete(ALICE, sandbox.id)
    assert caught.value.code == "HOST_UNAVAILABLE"
    assert world.engine.directory.socket_of(sandbox.id) is None
    with pytest.raises(CoveError, match="does not destroy"):
        await world.engine.lifecycle.delete(ALICE, sandbox.id)
    world.host.refuse_destroy = False
    await world.engine.reconciler.reconcile()
    assert world.host.ids == set()


async def test_a_kill_goes_on_when_its_caller_has_gone(world: World) -> None:
    sandbox = (await world.create()).sandbox
    world.host.hang.clear()
    task = asyncio.create_task(world.engine.lifecycle.delete(ALICE, sandbox.id))
    await until(lambda: "destroy" in world.host.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    world.host.hang.set()
    await until(lambda: not world.host.ids)


async def test_other_namespaces_do_not_exist(world: World) -> None:
    sandbox = (await world.create()).sandbox
    lifecycle = world.engine.lifecycle
    for call in (
        lifecycle.get(BOB, sandbox.id),
        lifecycle.delete(BOB, sandbox.id),
        lifecycle.pause(BOB, sandbox.id),
        lifecycle.resume(BOB, sandbox.id),
        lifecycle.set_timeout(BOB, sandbox.id, 5),
        lifecycle.refresh_token(BOB, sandbox.id),
        lifecycle.stop(BOB, sandbox.id),
        lifecycle.start(BOB, sandbox.id),
    ):
        with pytest.raises(CoveError, match=f"Sandbox '{sandbox.id}' was not found.") as caught:
            await call
        assert caught.value.details == {}
    assert (await lifecycle.list(BOB, limit=10)).sandboxes == ()
    assert await world.rows() == {sandbox.id: sandbox}
    await lifecycle.delete(ALICE, sandbox.id)
    with pytest.raises(CoveError) as caught:
        await lifecycle.get(BOB, sandbox.id)
    assert "killed" not in str(caught.value)


@pytest.mark.parametrize("bad", ["", "x", "../../etc/passwd", "1" * 5000, "1763382095i648uu1o\n", "\0"])
async def test_what_is_no_id_is_not_found(world: World, bad: str) -> None:
    with pytest.raises(CoveError) as caught:
        await world.engine.lifecycle.delete(ALICE, bad)
    assert caught.value.code == "SANDBOX_NOT_FOUND"
    assert len(caught.value.message) < 500


async def test_timeouts_move_the_deadline_everywhere(world: World) -> None:
    sandbox = (await world.create(timeout_seconds=60)).sandbox
    row = await world.engine.lifecycle.set_timeout(ALICE, sandbox.id, 600)
    assert row.deadline == world.clock.now + 600
    assert world.host.driver.sandboxes[sandbox.id].record.deadline == row.deadline
    world.clock.now += 61
    await world.engine.lifecycle.expire(sandbox.id)
    assert sandbox.id in world.host.ids
    endless = await world.engine.lifecycle.set_timeout(ALICE, sandbox.id, 0)
    assert (endless.deadline, endless.timeout_seconds) == (None, None)
    world.clock.now += 1e6
    await world.engine.lifecycle.expire(sandbox.id)
    assert sandbox.id in world.host.ids


async def test_pause_and_resume_are_idempotent(world: World) -> None:
    sandbox = (await world.create()).sandbox
    for _ in range(2):
        assert (await world.engine.lifecycle.pause(ALICE, sandbox.id)).status is SandboxStatus.PAUSED
    assert (await world.engine.lifecycle.get(ALICE, sandbox.id)).status is SandboxStatus.PAUSED
    for _ in range(2):
        assert (await world.engine.lifecycle.resume(ALICE, sandbox.id)).status is SandboxStatus.RUNNING


async def test_stop_and_start_are_idempotent_and_keep_the_environment(world: World) -> None:
    sandbox = (await world.create(env_vars={"A": "b"}, timeout_seconds=60)).sandbox
    world.host.driver.sandboxes[sandbox.id].env_vars["LATER"] = "c"
    lifecycle, directory = world.engine.lifecycle, world.engine.directory
    for _ in range(2):
        assert (await lifecycle.stop(ALICE, sandbox.id)).status is SandboxStatus.STOPPED
    assert (directory.socket_of(sandbox.id), directory.state_of(sandbox.id)) == (None, SandboxStatus.STOPPED)
    for _ in range(2):
        row = await lifecycle.start(ALICE, sandbox.id)
        assert (row.status, row.deadline) == (SandboxStatus.RUNNING, sandbox.deadline)
    assert directory.socket_of(sandbox.id) is not None
    assert world.host.driver.sandboxes[sandbox.id].env_vars == {"A": "b", "LATER": "c"}
    actions = [event.action for event in await world.events()]
    assert actions == ["sandbox.running", "sandbox.stopped", "sandbox.created"]


async def test_a_paused_sandbox_is_stopped_with_its_environment(world: World) -> None:
    sandbox = (await world.create(env_vars={"A": "b"})).sandbox
    await world.engine.lifecycle.pause(ALICE, sandbox.id)
    await world.engine.lifecycle.stop(ALICE, sandbox.id)
    await world.engine.lifecycle.start(ALICE, sandbox.id)
    assert world.host.driver.sandboxes[sandbox.id].env_vars == {"A": "b"}


async def test_a_sandbox_whose_agent_says_nothing_can_be_stopped(world: World) -> None:
    sandbox = (await world.create(env_vars={"A": "b"})).sandbox
    world.host.driver.agent_status = 500
    server = world.host.driver.sandboxes[sandbox.id].server
    assert server
    server.close()
    assert (await world.engine.lifecycle.stop(ALICE, sandbox.id)).status is SandboxStatus.STOPPED
    world.host.driver.sandboxes[sandbox.id].server = None
    assert (await world.engine.lifecycle.start(ALICE, sandbox.id)).status is SandboxStatus.RUNNING


@pytest.mark.parametrize(
    ("before", "action", "way_out"),
    [
        (Action.PAUSE, Action.START, "/resume"),
        (Action.STOP, Action.PAUSE, "/start"),
        (Action.STOP, Action.RESUME, "/start"),
    ],
)
async def test_states_that_do_not_fit_are_refused_with_the_way_out(
    world: World, before: Action, action: Action, way_out: str
) -> None:
    sandbox = (await world.create()).sandbox
    lifecycle = world.engine.lifecycle
    calls = {
        Action.PAUSE: lifecycle.pause,
        Action.RESUME: lifecycle.resume,
        Action.STOP: lifecycle.stop,
        Action.START: lifecycle.start,
    }
    row = await calls[before](ALICE, sandbox.id)
    with pytest.raises(CoveError) as caught:
        await calls[action](ALICE, sandbox.id)
    assert caught.value.code == "INVALID_STATE"
    assert way_out in caught.value.remedy
    assert caught.value.details["status"] == row.status
    assert await lifecycle.get(ALICE, sandbox.id) == row


async def test_a_paused_sandbox_lets_nobody_through_until_it_runs_again(world: World) -> None:
    sandbox = (await world.create()).sandbox
    directory = world.engine.directory
    world.host.hang.clear()
    pausing = asyncio.create_task(world.engine.lifecycle.pause(ALICE, sandbox.id))
    await until(lambda: "pause" in world.host.calls)
    assert directory.socket_of(sandbox.id) is None  # before it is frozen: afterwards a request would hang
    world.host.hang.set()
    await pausing
    world.host.hang.clear()
    resuming = asyncio.create_task(world.engine.lifecycle.resume(ALICE, sandbox.id))
    await until(lambda: "resume" in world.host.calls)
    assert directory.state_of(sandbox.id) is SandboxStatus.PAUSED
    world.host.hang.set()
    await resuming
    assert directory.socket_of(sandbox.id) is not None


@pytest.mark.parametrize("action", ["pause", "stop"])
async def test_a_switch_that_fails_leaves_the_sandbox_open(world: World, action: str) -> None:
    sandbox = (await world.create()).sandbox
    world.host.down = True
    with pytest.raises(CoveError) as caught:
        await getattr(world.engine.lifecycle, action)(ALICE, sandbox.id)
    assert caught.value.code == "HOST_UNAVAILABLE"
    assert world.engine.directory.socket_of(sandbox.id) is not None
    assert (await world.engine.lifecycle.get(ALICE, sandbox.id)).status is SandboxStatus.RUNNING


async def test_stopped_sandboxes_can_be_killed_and_expire(world: World) -> None:
    killed, due = (await world.create()).sandbox, (await world.create(timeout_seconds=60)).sandbox
    for one in (killed, due):
        await world.engine.lifecycle.stop(ALICE, one.id)
    await world.engine.lifecycle.refresh_token(ALICE, killed.id)
    await world.engine.lifecycle.delete(ALICE, killed.id)
    assert world.host.ids == {due.id}
    world.clock.now += 61
    await world.engine.lifecycle.expire(due.id)
    assert world.host.ids == set()


async def test_stopped_sandboxes_count(socket_dir: Path) -> None:
    world = World(socket_dir, policy=CreationPolicy(max_sandboxes=1))
    await world.open()
    try:
        sandbox = (await world.create()).sandbox
        await world.engine.lifecycle.stop(ALICE, sandbox.id)
        with pytest.raises(CoveError) as caught:
            await world.create()
        assert caught.value.code == "RESOURCE_LIMIT_EXCEEDED"
        await world.engine.lifecycle.start(ALICE, sandbox.id)
    finally:
        await world.close()


async def test_concurrent_switches_leave_store_and_host_agreed(world: World) -> None:
    sandbox = (await world.create()).sandbox
    lifecycle = world.engine.lifecycle
    calls = [
        call(ALICE, sandbox.id) for call in (lifecycle.pause, lifecycle.resume, lifecycle.stop, lifecycle.start) * 6
    ]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {answer.code for answer in answers if isinstance(answer, CoveError)} <= {"INVALID_STATE"}
    row = await lifecycle.get(ALICE, sandbox.id)
    assert world.host.driver.sandboxes[sandbox.id].record.state.value == row.status.value


async def test_a_sandbox_that_the_host_lost_is_found_out_by_the_next_call(world: World) -> None:
    sandbox = (await world.create()).sandbox
    world.host.crash(sandbox.id)
    with pytest.raises(CoveError):
        await world.engine.lifecycle.pause(ALICE, sandbox.id)
    with pytest.raises(CoveError, match="first process died"):
        await world.engine.lifecycle.get(ALICE, sandbox.id)


async def test_tokens_are_for_sandboxes_that_live(world: World) -> None:
    made = await world.create()
    token = await world.engine.lifecycle.refresh_token(ALICE, made.sandbox.id)
    assert token.auth_token.count(".") == 2
    await world.engine.lifecycle.delete(ALICE, made.sandbox.id)
    with pytest.raises(CoveError) as caught:
        await world.engine.lifecycle.refresh_token(ALICE, made.sandbox.id)
    assert caught.value.code == "SANDBOX_NOT_FOUND"


async def test_lists_come_in_pages(world: World) -> None:
    ids: list[str] = []
    for _ in range(7):
        ids.append((await world.create()).sandbox.id)
        world.clock.now += 1
    await world.engine.lifecycle.delete(ALICE, ids.pop(3))
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(5):
        page = await world.engine.lifecycle.list(ALICE, limit=4, cursor=cursor)
        seen += [row.id for row in page.sandboxes]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ids[::-1]
    exact = await world.engine.lifecycle.list(ALICE, limit=6)
    assert (len(exact.sandboxes), exact.next_cursor) == (6, None)
    gone = await world.engine.lifecycle.list(ALICE, limit=5, status=SandboxStatus.DELETED)
    assert [row.end_reason for row in gone.sandboxes] == [EndReason.KILLED]


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "ü", "bmFuIDE3NjMzODIwOTVpNjQ4dXUxbw", "A" * 10_000, "\0"])
async def test_cursors_that_no_page_gave_out_are_refused(world: World, cursor: str) -> None:
    with pytest.raises(CoveError) as caught:
        await world.engine.lifecycle.list(ALICE, limit=1, cursor=cursor)
    assert caught.value.code == "INVALID_REQUEST"
    assert caught.value.details["field"] == "cursor"


async def test_an_unknown_id_of_the_right_shape(world: World) -> None:
    with pytest.raises(CoveError, match="was not found"):
        await world.engine.lifecycle.get(ALICE, new_sandbox_id())
