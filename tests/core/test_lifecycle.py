"""What can be done with sandboxes that exist."""

import asyncio

import pytest
from tests.core.world import ALICE, BOB, World, until

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


async def test_concurrent_pauses_and_resumes_leave_store_and_host_agreed(world: World) -> None:
    sandbox = (await world.create()).sandbox
    lifecycle = world.engine.lifecycle
    calls = [call(ALICE, sandbox.id) for call in (lifecycle.pause, lifecycle.resume) * 6]
    await asyncio.gather(*calls)
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
