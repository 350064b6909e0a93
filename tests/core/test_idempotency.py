"""Creates that are sent twice make one sandbox."""

import asyncio

import pytest
from tests.core.world import ALICE, BOB, World, until

from cove.core.idempotency import REMEMBERED_SECONDS, Outcome
from cove.core.planning import CreationPolicy
from cove.core.principal import Principal
from cove.core.retention import Retention
from cove.models.errors import CoveError, error
from cove.models.sandboxes import CreateSandbox

pytestmark = pytest.mark.anyio


async def stays() -> bool:
    return False


async def leaves() -> bool:
    return True


async def create(world: World, key: str | None = "k", principal: Principal = ALICE, /, **fields: object) -> Outcome:
    request = CreateSandbox.model_validate({"template_name": "code-interpreter", **fields})
    outcome = await world.engine.creates.create(principal, request, key=key, gone=stays)
    assert outcome is not None
    return outcome


async def refused(world: World, key: str = "k", **fields: object) -> CoveError:
    with pytest.raises(CoveError) as caught:
        await create(world, key, **fields)
    return caught.value


async def test_the_same_key_makes_one_sandbox_also_after_a_restart(world: World) -> None:
    first = await create(world, env_vars={"A": "1", "B": "2"})
    again = await create(world, env_vars={"B": "2", "A": "1"})
    assert (first.replayed, again.replayed) == (False, True)
    assert again.creation.sandbox == first.creation.sandbox
    world.clock.now += 60
    await world.restart()
    later = await create(world, env_vars={"A": "1", "B": "2"})
    assert later.replayed
    assert later.creation.sandbox.id == first.creation.sandbox.id
    assert later.creation.token.auth_token != first.creation.token.auth_token
    assert len(world.host.ids) == 1


async def test_without_a_key_identical_creates_make_as_many_sandboxes(world: World) -> None:
    made = [await create(world, None) for _ in range(2)]
    assert len({each.creation.sandbox.id for each in made}) == len(world.host.ids) == 2


async def test_keys_belong_to_an_api_key(world: World) -> None:
    carol = Principal("default", "carol")
    made = [await create(world, "k", each) for each in (ALICE, BOB, carol)]
    assert not any(each.replayed for each in made)
    assert len(world.host.ids) == 3


async def test_another_body_under_the_same_key_is_a_conflict(world: World) -> None:
    made = await create(world)
    failure = await refused(world, timeout_seconds=5)
    assert failure.code == "CONFLICT"
    assert "new key" in failure.remedy
    assert world.host.ids == {made.creation.sandbox.id}


async def test_requests_with_the_same_key_wait_for_the_first(world: World) -> None:
    world.host.driver.gate.clear()
    begun = [asyncio.create_task(create(world)) for _ in range(5)]
    await until(lambda: "create" in world.host.calls)
    assert (await refused(world, timeout_seconds=5)).code == "CONFLICT"
    world.host.driver.gate.set()
    made = await asyncio.gather(*begun)
    assert len({each.creation.sandbox.id for each in made}) == len(world.host.ids) == 1
    assert sorted(each.replayed for each in made) == [False, True, True, True, True]


async def test_a_create_that_failed_is_not_remembered(world: World) -> None:
    world.host.driver.failures.append(error("CAPACITY_EXHAUSTED", "Full."))
    assert (await refused(world)).code == "CAPACITY_EXHAUSTED"
    assert not (await create(world, timeout_seconds=7)).replayed


async def test_those_that_waited_for_a_create_that_failed_try_it_themselves(world: World) -> None:
    world.host.driver.failures.append(error("DISK_FULL", "No room."))
    world.host.hang.clear()
    begun = [asyncio.create_task(create(world)) for _ in range(3)]
    await until(lambda: "create" in world.host.calls)
    world.host.hang.set()
    outcomes = await asyncio.gather(*begun, return_exceptions=True)
    failed = [each for each in outcomes if isinstance(each, CoveError)]
    made = [each for each in outcomes if isinstance(each, Outcome)]
    assert [each.code for each in failed] == ["DISK_FULL"]
    assert len({each.creation.sandbox.id for each in made}) == len(world.host.ids) == 1


async def test_a_client_that_went_away_leaves_nothing_and_may_ask_again(world: World) -> None:
    request = CreateSandbox(template_name="code-interpreter")
    for key in (None, "k"):
        assert await world.engine.creates.create(ALICE, request, key=key, gone=leaves) is None
        assert world.host.ids == set()
    again = await create(world)
    assert not again.replayed
    assert world.host.ids == {again.creation.sandbox.id}


async def test_a_repetition_takes_the_sandbox_whose_first_client_went_away(world: World) -> None:
    world.host.driver.gate.clear()
    request = CreateSandbox(template_name="code-interpreter")
    first = asyncio.create_task(world.engine.creates.create(ALICE, request, key="k", gone=leaves))
    await until(lambda: "create" in world.host.calls)
    second = asyncio.create_task(create(world))
    await asyncio.sleep(0)
    world.host.driver.gate.set()
    taken = await second
    assert taken.replayed
    assert await first is not None
    assert world.host.ids == {taken.creation.sandbox.id}


async def test_a_sandbox_that_ended_is_not_made_anew_under_its_key(world: World) -> None:
    made = (await create(world)).creation.sandbox
    await world.engine.lifecycle.delete(ALICE, made.id)
    failure = await refused(world)
    assert (failure.code, failure.details["sandbox_id"]) == ("CONFLICT", made.id)
    assert world.host.ids == set()


async def test_a_replay_needs_no_room(world: World) -> None:
    world.policy = CreationPolicy(max_sandboxes=1)
    await world.restart()
    made = await create(world)
    assert (await create(world)).creation.sandbox == made.creation.sandbox
    assert (await refused(world, "another")).code == "RESOURCE_LIMIT_EXCEEDED"


async def test_keys_are_forgotten_after_a_day(world: World) -> None:
    first = await create(world, timeout_seconds=0)
    world.clock.now += REMEMBERED_SECONDS - 1
    assert (await create(world, timeout_seconds=0)).replayed
    world.clock.now += 1
    second = await create(world, timeout_seconds=9)
    assert not second.replayed
    assert first.creation.sandbox.id != second.creation.sandbox.id
    world.clock.now += REMEMBERED_SECONDS + 1
    await Retention(world.store, clock=world.clock).prune()
    assert (await create(world, timeout_seconds=11)).replayed is False


async def test_a_namespace_keeps_the_newest_keys(world: World) -> None:
    for number in range(4):
        world.clock.now += 1
        await create(world, f"k{number}")
    await create(world, "theirs", BOB)
    assert await world.store.write(lambda work: work.creates.trim("default", keep=2)) == 2
    assert await world.store.write(lambda work: work.creates.trim("default", keep=2)) == 0
    assert [(await create(world, f"k{number}")).replayed for number in (2, 3)] == [True, True]
    assert (await create(world, "theirs", BOB)).replayed
    assert not (await create(world, "k0")).replayed


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "x" * 256, "schlüssel", "\x00"])
async def test_what_is_no_key_is_refused(world: World, key: str) -> None:
    assert (await refused(world, key)).code == "INVALID_REQUEST"
    assert world.host.ids == set()


async def test_the_filter_of_known_keys_hides_none(world: World) -> None:
    made = [(await create(world, f"k{number}")).creation.sandbox.id for number in range(3)]
    await world.restart()
    known = world.engine.creates._known  # pyright: ignore[reportPrivateUsage]
    fresh = await create(world, "new", BOB)
    await until(lambda: known._known is not None)  # pyright: ignore[reportPrivateUsage]
    assert not known.may_have(b"x" * 32)
    assert [(await create(world, f"k{number}")).creation.sandbox.id for number in range(3)] == made
    assert (await create(world, "new", BOB)).creation.sandbox == fresh.creation.sandbox
    later = await create(world, "later")
    assert (await create(world, "later")).creation.sandbox == later.creation.sandbox


async def test_with_too_many_keys_the_store_is_asked_for_each(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cove.core.known_creates._MOST", 2)
    known = world.engine.creates._known  # pyright: ignore[reportPrivateUsage]
    for number in range(4):
        await create(world, f"k{number}")
    assert known.may_have(b"x" * 32)
    assert all([(await create(world, f"k{number}")).replayed for number in range(4)])
    await world.restart()
    assert all([(await create(world, f"k{number}")).replayed for number in range(4)])
