"""Client leases: what is made with one is seen by it alone, and ends with it however it ends."""

import asyncio
from dataclasses import replace

import pytest
from tests.core.world import ALICE, BOB, World, until

from cove.core import client_leases
from cove.core.client_leases import ClientLease
from cove.core.pages import MAX_PAGE
from cove.core.principal import Principal
from cove.models.errors import CoveError
from cove.models.sandboxes import EndReason

pytestmark = pytest.mark.anyio


def holder(world: World, lease: ClientLease) -> Principal:
    found = world.engine.delegated_keys.principal_of(lease.api_key)
    assert found is not None
    return found


async def listed(world: World, principal: Principal) -> set[str]:
    page = await world.engine.lifecycle.list(principal, limit=MAX_PAGE)
    return {row.id for row in page.sandboxes}


async def code_of(world: World, principal: Principal, sandbox_id: str) -> str:
    with pytest.raises(CoveError) as caught:
        await world.engine.lifecycle.get(principal, sandbox_id)
    with pytest.raises(CoveError) as deleting:
        await world.engine.lifecycle.delete(principal, sandbox_id)
    assert deleting.value.code == caught.value.code
    return caught.value.code


async def test_who_sees_what(world: World) -> None:
    leases = world.engine.leases
    plain = (await world.create()).sandbox.id
    async with leases.open(ALICE) as one, leases.open(ALICE) as two:
        assert leases.count == 2
        first, second = holder(world, one), holder(world, two)
        mine, yours = (await world.create(first)).sandbox, (await world.create(second)).sandbox
        assert mine.client_lease == one.id
        assert await listed(world, first) == {mine.id}
        assert await listed(world, second) == {yours.id}
        assert await listed(world, ALICE) == {plain, mine.id, yours.id}
        assert await listed(world, BOB) == set()
        for principal, sandbox_id in ((first, yours.id), (first, plain), (second, mine.id), (BOB, mine.id)):
            assert await code_of(world, principal, sandbox_id) == "SANDBOX_NOT_FOUND"
        await world.engine.lifecycle.delete(ALICE, yours.id)
        await world.engine.lifecycle.delete(first, mine.id)
    assert world.host.ids == {plain}


async def test_the_end_of_a_lease_withdraws_its_key_and_ends_its_sandboxes(world: World) -> None:
    async with world.engine.leases.open(ALICE) as lease:
        principal = holder(world, lease)
        made = [(await world.create(principal)).sandbox.id for _ in range(3)]
        elsewhere = (await world.create(replace(principal, namespace="team"))).sandbox.id
    assert world.engine.delegated_keys.principal_of(lease.api_key) is None
    assert world.host.ids == set()
    rows = [await world.row(sandbox_id) for sandbox_id in (*made, elsewhere)]
    assert {row.end_reason for row in rows if row} == {EndReason.KILLED}
    with pytest.raises(CoveError) as caught:
        await world.create(principal)
    assert caught.value.code == "AUTHENTICATION_REQUIRED"


async def test_a_holder_that_is_cancelled_leaves_nothing(world: World) -> None:
    opened = asyncio.Event()

    async def hold() -> None:
        async with world.engine.leases.open(ALICE) as lease:
            await world.create(holder(world, lease))
            opened.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    async with asyncio.timeout(10):
        await opened.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    await until(lambda: not world.host.ids)
    assert world.engine.leases.count == 0


async def test_a_create_that_is_under_way_when_the_lease_ends_is_undone(world: World) -> None:
    gate = world.host.driver.gate
    async with world.engine.leases.open(ALICE) as lease:
        gate.clear()
        making = asyncio.create_task(world.create(holder(world, lease)))
        await until(lambda: "create" in world.host.calls)
    gate.set()
    with pytest.raises(CoveError) as caught:
        await making
    assert caught.value.code == "AUTHENTICATION_REQUIRED"
    assert world.host.ids == set()
    assert await world.rows() == {}
    assert world.engine.quotas.usage_of(ALICE).sandboxes == 0


async def test_leases_do_not_survive_their_server(world: World) -> None:
    plain = (await world.create()).sandbox.id
    async with world.engine.leases.open(ALICE) as lease:
        await world.create(holder(world, lease))
        await world.restart()
        await world.engine.reconciler.try_pass()
        assert world.host.ids == {plain}
        assert (await world.rows()).keys() == {plain}


async def test_what_could_not_be_ended_is_ended_later(world: World) -> None:
    async with world.engine.leases.open(ALICE) as lease:
        made = (await world.create(holder(world, lease))).sandbox.id
        world.host.refuse_destroy = True
    assert world.host.ids == {made}
    assert world.engine.directory.socket_of(made) is None
    world.host.refuse_destroy = False
    await world.engine.reconciler.try_pass()
    assert world.host.ids == set()


async def test_reconciling_leaves_open_leases_alone(world: World) -> None:
    async with world.engine.leases.open(ALICE) as lease:
        made = (await world.create(holder(world, lease))).sandbox.id
        await world.engine.reconciler.reconcile()
        assert (await world.rows()).keys() == {made}


async def test_a_key_of_a_lease_opens_no_other(world: World) -> None:
    async with world.engine.leases.open(ALICE) as lease:
        with pytest.raises(CoveError) as caught:
            async with world.engine.leases.open(holder(world, lease)):
                pass
    assert caught.value.code == "FORBIDDEN"


async def test_there_is_a_bound_for_each_key_and_for_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_leases, "MAX_LEASES_OF_KEY", 1)
    monkeypatch.setattr(client_leases, "MAX_LEASES", 2)
    leases = world.engine.leases
    carol = Principal("default", "carol")
    async with leases.open(ALICE):
        for principal, limit in ((ALICE, 1), (carol, 2)):
            async with leases.open(BOB):
                with pytest.raises(CoveError) as caught:
                    async with leases.open(principal):
                        pass
            assert (caught.value.code, caught.value.details["limit"]) == ("RESOURCE_LIMIT_EXCEEDED", limit)
    async with leases.open(ALICE):
        assert leases.count == 1


async def test_changes_of_the_count_can_be_awaited(world: World) -> None:
    counts: list[int] = []

    async def follow() -> None:
        while True:
            await world.engine.leases.change()
            counts.append(world.engine.leases.count)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    async with world.engine.leases.open(ALICE):
        await until(lambda: counts == [1])
    await until(lambda: counts == [1, 0])
    following.cancel()


async def test_a_server_that_ends_has_clients_go_and_takes_no_more(world: World) -> None:
    async with world.engine.leases.open(ALICE) as lease:
        world.engine.leases.close()
        assert lease.ending.is_set()
    with pytest.raises(CoveError) as caught:
        async with world.engine.leases.open(ALICE):
            pass
    assert caught.value.code == "HOST_UNAVAILABLE"


async def test_idempotency_keys_of_two_leases_are_two(world: World) -> None:
    from cove.models.sandboxes import CreateSandbox

    async def here() -> bool:
        return False

    request = CreateSandbox(template_name="base")
    async with world.engine.leases.open(ALICE) as one, world.engine.leases.open(ALICE) as two:
        made = [
            await world.engine.creates.create(holder(world, lease), request, key="same", gone=here)
            for lease in (one, two, one)
        ]
        ids = [outcome.creation.sandbox.id for outcome in made if outcome]
        assert ids[0] == ids[2] != ids[1]
