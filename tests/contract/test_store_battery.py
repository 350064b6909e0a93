"""What every store must do, whichever database is behind it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.core.fake_host import manifest

from cove.core.storage import Store, UnitOfWork
from cove.models.errors import CoveError
from cove.models.identifiers import new_sandbox_id
from cove.models.isolation import Isolation
from cove.models.limits import Limits
from cove.models.sandboxes import EndReason, SandboxStatus
from cove.models.stored import SandboxQuery, StoredEvent, StoredKey, StoredSandbox
from cove.store.database import Database

pytestmark = pytest.mark.anyio

Opener = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["sqlite"])
async def opener(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    """Opens the same database again and again, as several processes do."""
    opened: list[Database] = []

    async def open_one() -> Store:
        database = Database.at_path(tmp_path / f"{request.param}.db")
        await database.open()
        opened.append(database)
        return database

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
async def store(opener: Opener) -> Store:
    return await opener()


def sandbox(**changes: object) -> StoredSandbox:
    row = StoredSandbox(
        id=new_sandbox_id(),
        namespace="default",
        status=SandboxStatus.RUNNING,
        template_id="1",
        template_name="base",
        template_digest="d",
        isolation=Isolation.NAMESPACE,
        limits=Limits(vcpu=1, memory_mb=128, disk_mb=256, pids=32, open_files=100),
        region="here",
        timeout_seconds=60,
        created_at=time.time(),
        deadline=time.time() + 60,
    )
    return replace(row, **changes)  # pyright: ignore[reportArgumentType]


async def add(store: Store, *rows: StoredSandbox) -> None:
    def work(unit: UnitOfWork) -> None:
        for row in rows:
            unit.sandboxes.add(row)

    await store.write(work)


async def get(store: Store, sandbox_id: str) -> StoredSandbox | None:
    return await store.read(lambda unit: unit.sandboxes.get(sandbox_id))


async def test_a_row_comes_back_as_it_was_stored(store: Store) -> None:
    row = sandbox()
    bare = sandbox(deadline=None, timeout_seconds=None, region=None)
    await add(store, row, bare)
    assert await get(store, row.id) == row
    assert await get(store, bare.id) == bare
    assert await get(store, new_sandbox_id()) is None


async def test_an_id_is_taken_once(store: Store) -> None:
    row = sandbox()
    await add(store, row)
    with pytest.raises(CoveError) as caught:
        await add(store, replace(row, namespace="other"))
    assert caught.value.code == "CONFLICT"
    assert await get(store, row.id) == row


async def test_a_unit_of_work_that_raises_leaves_nothing(store: Store) -> None:
    row = sandbox()

    def work(unit: UnitOfWork) -> None:
        unit.sandboxes.add(row)
        unit.events.add(StoredEvent(at=1.0, namespace="default", actor="a", action="b", subject="c"))
        raise RuntimeError("after all")

    with pytest.raises(RuntimeError):
        await store.write(work)
    assert await get(store, row.id) is None
    assert await store.read(lambda unit: unit.events.recent(namespace="default")) == ()


async def test_a_cancelled_caller_does_not_tear_a_transaction(store: Store) -> None:
    rows = [sandbox() for _ in range(20)]
    tasks = [asyncio.create_task(add(store, row, replace(row, id=row.id[::-1]))) for row in rows]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await add(store, sandbox())
    for row in rows:
        assert (await get(store, row.id) is None) == (await get(store, row.id[::-1]) is None)


async def test_a_transition_starts_only_from_the_states_it_names(store: Store) -> None:
    row = sandbox()
    await add(store, row)
    sources = frozenset({SandboxStatus.RUNNING})

    def pause(unit: UnitOfWork) -> StoredSandbox | None:
        return unit.sandboxes.transition(row.id, sources=sources, target=SandboxStatus.PAUSED)

    assert await store.write(pause) == replace(row, status=SandboxStatus.PAUSED)
    assert await store.write(pause) is None


async def test_of_many_that_end_a_sandbox_exactly_one_does(opener: Opener) -> None:
    stores = [await opener() for _ in range(3)]
    row = sandbox()
    await add(stores[0], row)

    def end(unit: UnitOfWork) -> StoredSandbox | None:
        return unit.sandboxes.end(row.id, reason=EndReason.CRASHED, at=5.0, limit="memory 512 MiB")

    ended = await asyncio.gather(*(store.write(end) for store in stores for _ in range(5)))
    assert [each for each in ended if each] == [
        replace(
            row,
            status=SandboxStatus.DELETED,
            ended_at=5.0,
            end_reason=EndReason.CRASHED,
            end_limit="memory 512 MiB",
        )
    ]
    assert await get(stores[1], row.id) == next(each for each in ended if each)


async def test_an_expiry_does_not_end_what_was_prolonged(store: Store) -> None:
    row = sandbox(deadline=100.0)
    endless = sandbox(deadline=None)
    await add(store, row, endless)
    later = await store.write(lambda unit: unit.sandboxes.set_deadline(row.id, deadline=200.0, timeout_seconds=7))
    assert later == replace(row, deadline=200.0, timeout_seconds=7)

    def expire(sandbox_id: str, due: float) -> Callable[[UnitOfWork], StoredSandbox | None]:
        return lambda unit: unit.sandboxes.end(sandbox_id, reason=EndReason.EXPIRED, at=due, due=due)

    assert await store.write(expire(row.id, 150.0)) is None
    assert await store.write(expire(endless.id, 1e12)) is None
    assert await store.write(expire(row.id, 200.0)) is not None


async def test_another_namespace_ends_nothing(store: Store) -> None:
    row = sandbox()
    await add(store, row)
    reason = EndReason.KILLED
    assert await store.write(lambda unit: unit.sandboxes.end(row.id, reason=reason, at=1.0, namespace="x")) is None
    assert await store.write(lambda unit: unit.sandboxes.end(row.id, reason=reason, at=1.0, namespace="default"))


async def test_tombstones_change_no_more(store: Store) -> None:
    row = sandbox()
    await add(store, row)
    ended = await store.write(lambda unit: unit.sandboxes.end(row.id, reason=EndReason.CRASHED, at=1.0))
    assert await store.write(lambda unit: unit.sandboxes.end(row.id, reason=EndReason.KILLED, at=2.0)) is None
    assert await store.write(lambda unit: unit.sandboxes.set_deadline(row.id, deadline=1.0, timeout_seconds=1)) is None
    assert await get(store, row.id) == ended


async def test_pages_show_each_row_once_also_when_times_are_equal(store: Store) -> None:
    rows = [sandbox(created_at=1000.0 + index // 4) for index in range(17)]
    await add(store, *rows, sandbox(namespace="other"), sandbox(status=SandboxStatus.DELETED, ended_at=1.0))
    seen: list[StoredSandbox] = []
    query = SandboxQuery(namespace="default", limit=5)
    for _ in range(10):
        at = query
        page = await store.read(lambda unit, at=at: unit.sandboxes.page(at))
        seen.extend(page)
        if len(page) < 5:
            break
        query = replace(query, before=(page[-1].created_at, page[-1].id))
    assert seen == sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)


async def test_pages_filter(store: Store) -> None:
    paused, elsewhere = sandbox(status=SandboxStatus.PAUSED), sandbox(region="there")
    await add(store, paused, elsewhere)
    by_status = SandboxQuery(namespace="default", status=SandboxStatus.PAUSED)
    by_region = SandboxQuery(namespace="default", region="there")
    assert await store.read(lambda unit: unit.sandboxes.page(by_status)) == (paused,)
    assert await store.read(lambda unit: unit.sandboxes.page(by_region)) == (elsewhere,)


async def test_names_are_unique_among_the_live_of_a_namespace_and_lease(store: Store) -> None:
    first = sandbox(name="one")
    await add(store, first, sandbox(name="one", namespace="other"), sandbox(name="one", client_lease="l"), sandbox())
    with pytest.raises(CoveError) as caught:
        await add(store, sandbox(), sandbox(name="one"))
    assert (caught.value.code, caught.value.details["sandbox_id"]) == ("CONFLICT", first.id)
    with pytest.raises(CoveError) as caught:
        await add(store, first)
    assert caught.value.code == "CONFLICT"
    assert await store.read(lambda unit: unit.sandboxes.holder("one", "default", "")) == first.id
    await store.write(lambda unit: unit.sandboxes.end(first.id, reason=EndReason.KILLED, at=1.0))
    assert await store.read(lambda unit: unit.sandboxes.holder("one", "default", "")) is None
    second = sandbox(name="one")
    await add(store, second)
    assert await get(store, second.id) == second


async def test_of_stores_at_once_one_gets_a_name(opener: Opener) -> None:
    stores = [await opener() for _ in range(3)]
    rows = [sandbox(name="one") for _ in range(15)]
    outcomes = await asyncio.gather(
        *(add(stores[index % 3], row) for index, row in enumerate(rows)), return_exceptions=True
    )
    assert outcomes.count(None) == 1
    winner = rows[outcomes.index(None)].id
    losers = [each for each in outcomes if each is not None]
    assert {each.details["sandbox_id"] for each in losers if isinstance(each, CoveError)} == {winner}


async def test_pages_of_a_name_of_a_lease_and_of_all_namespaces(store: Store) -> None:
    named, leased, other = sandbox(name="one"), sandbox(client_lease="l", name="one"), sandbox(namespace="other")
    await add(store, named, leased, other)

    async def page(**query: str) -> set[str]:
        asked = SandboxQuery(**{"namespace": "default", **query})  # pyright: ignore[reportArgumentType]
        return {row.id for row in await store.read(lambda unit: unit.sandboxes.page(asked))}

    assert await page(name="one") == {named.id, leased.id}
    assert await page(client_lease="l") == {leased.id}
    assert await page(namespace="*") == {named.id, leased.id, other.id}
    assert await page(namespace="*", client_lease="l") == {leased.id}


async def test_another_lease_ends_nothing(store: Store) -> None:
    row = sandbox(client_lease="l")
    await add(store, row)
    for lease, ends in (("x", False), ("l", True)):
        ended = await store.write(
            lambda unit, lease=lease: unit.sandboxes.end(
                row.id, reason=EndReason.KILLED, at=1.0, namespace="default", client_lease=lease
            )
        )
        assert (ended is not None) is ends


async def test_live_and_counts_leave_out_tombstones(store: Store) -> None:
    running, paused, other = sandbox(), sandbox(status=SandboxStatus.PAUSED), sandbox(namespace="other")
    await add(store, running, paused, other, sandbox(status=SandboxStatus.DELETED, ended_at=1.0))
    live = await store.read(lambda unit: unit.sandboxes.live())
    assert {row.id for row in live} == {running.id, paused.id, other.id}
    counts = await store.read(lambda unit: unit.sandboxes.count_by_status())
    assert counts == {SandboxStatus.RUNNING: 2, SandboxStatus.PAUSED: 1}


async def test_only_old_tombstones_and_events_are_pruned(store: Store) -> None:
    live = sandbox(created_at=1.0)
    old = sandbox(status=SandboxStatus.DELETED, ended_at=10.0)
    recent = sandbox(status=SandboxStatus.DELETED, ended_at=30.0)
    await add(store, live, old, recent)
    assert await store.write(lambda unit: unit.sandboxes.prune(ended_before=20.0)) == 1
    assert await get(store, old.id) is None
    assert await get(store, live.id) == live
    assert await get(store, recent.id) == recent


async def test_templates_keep_their_ids(store: Store) -> None:
    first = await store.write(lambda unit: unit.templates.put(manifest("base", "1"), at=1.0))
    second = await store.write(lambda unit: unit.templates.put(manifest("code-interpreter"), at=2.0))
    again = await store.write(lambda unit: unit.templates.put(manifest("base", "2"), at=3.0))
    assert first
    assert second
    assert again
    assert again.id == first.id != second.id
    assert (again.digest, again.created_at, again.updated_at) == ("base-2", 1.0, 3.0)
    assert again.languages == ("python", "bash")
    assert await store.read(lambda unit: unit.templates.all()) == (again, second)
    assert await store.read(lambda unit: unit.templates.get(second.id)) == second
    assert await store.read(lambda unit: unit.templates.get(second.id + 1)) is None


async def test_keys(store: Store) -> None:
    key = StoredKey(id="a" * 12, name="n", namespace="default", digest=bytes(range(32)), created_at=1.0)
    other = replace(key, id="b" * 12, namespace="other", created_at=2.0, expires_at=9.0)
    await store.write(lambda unit: unit.keys.add(key))
    await store.write(lambda unit: unit.keys.add(other))
    with pytest.raises(CoveError, match="exists already"):
        await store.write(lambda unit: unit.keys.add(key))
    assert await store.read(lambda unit: unit.keys.get(key.id)) == key
    assert await store.read(lambda unit: unit.keys.all()) == (key, other)
    assert await store.read(lambda unit: unit.keys.all(namespace="other")) == (other,)
    await store.write(lambda unit: unit.keys.touch({key.id: 5.0, "unknown": 6.0}))
    await store.write(lambda unit: unit.keys.touch({}))
    revoked = await store.write(lambda unit: unit.keys.revoke(key.id, at=7.0))
    assert revoked == replace(key, last_used_at=5.0, revoked_at=7.0)
    assert await store.write(lambda unit: unit.keys.revoke(key.id, at=8.0)) is None


async def test_events_are_newest_first_and_of_one_namespace(store: Store) -> None:
    def work(unit: UnitOfWork) -> None:
        for at in (1.0, 2.0, 3.0):
            unit.events.add(StoredEvent(at=at, namespace="a", actor="k", action="x", subject="s", details={"n": at}))
        unit.events.add(StoredEvent(at=4.0, namespace="b", actor="k", action="x", subject="s"))

    await store.write(work)
    recent = await store.read(lambda unit: unit.events.recent(namespace="a", limit=2))
    assert [(event.at, event.details) for event in recent] == [(3.0, {"n": 3.0}), (2.0, {"n": 2.0})]
    assert await store.write(lambda unit: unit.events.prune(before=3.0)) == 2


async def test_what_one_process_writes_another_reads(opener: Opener) -> None:
    one, two = await opener(), await opener()
    rows = [sandbox() for _ in range(40)]
    await asyncio.gather(*(add((one, two)[index % 2], row) for index, row in enumerate(rows)))
    assert len(await one.read(lambda unit: unit.sandboxes.live())) == 40
    assert len(await two.read(lambda unit: unit.sandboxes.live())) == 40
