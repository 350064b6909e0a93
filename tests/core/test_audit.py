"""What goes to agents and what is refused is noted at any rate, in bounded memory, and nothing goes uncounted."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.core.world import ALICE, BOB, World

from cove.core import audit
from cove.core.aggregation import HELD_SECONDS, Aggregation
from cove.core.principal import Origin
from cove.models.scopes import EVERY_NAMESPACE
from cove.models.stored import EventQuery, StoredEvent

pytestmark = pytest.mark.anyio

HERE = Origin("req_1", "192.0.2.1")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.open()
    yield made
    await made.close()


async def entries(world: World, **query: object) -> tuple[StoredEvent, ...]:
    await world.engine.audit.flush(everything=True)
    asked = EventQuery(**{"namespace": EVERY_NAMESPACE, "limit": 1000, **query})  # pyright: ignore[reportArgumentType]
    return (await world.store.read(lambda unit: unit.events.page(asked))).events


def run(world: World, sandbox_id: str, *, actor: str = "alice", size: int = 10, origin: Origin = HERE) -> None:
    world.engine.audit.to_agent(sandbox_id, actor, "code.run", "POST /execute", size, origin)


async def test_what_runs_in_a_sandbox_is_in_the_log_of_its_tenant(world: World) -> None:
    of_alice, of_bob = await world.create(ALICE), await world.create(BOB)
    run(world, of_alice.sandbox.id)
    run(world, of_bob.sandbox.id, actor="bob")
    run(world, "1763382095zzzzzzzz")
    found = await entries(world, action="code.")
    assert [(each.namespace, each.actor, each.subject) for each in found] == [
        ("default", "alice", "1763382095zzzzzzzz"),
        ("other", "bob", of_bob.sandbox.id),
        ("default", "alice", of_alice.sandbox.id),
    ]
    assert (found[0].request_id, found[0].address, found[0].details) == (
        "req_1", "192.0.2.1", {"route": "POST /execute", "bytes": 10},
    )  # fmt: skip


async def test_many_like_requests_are_few_entries_that_count_all(world: World) -> None:
    sandbox_id = (await world.create()).sandbox.id
    for number in range(5000):
        run(world, sandbox_id, origin=Origin("r", f"192.0.2.{number % 2}"))
    found = await entries(world, action="code.")
    assert len(found) == audit.BURST + 1
    assert sum(each.details.get("count", 1) for each in found) == 5000
    assert sum(each.details["bytes"] for each in found) == 50_000
    assert found[0].details["addresses"] == ["192.0.2.0", "192.0.2.1"]


async def test_a_flood_without_credentials_is_bounded(world: World) -> None:
    trail = world.engine.audit
    for number in range(20_000):
        origin = Origin("r", f"198.51.{number % 100}.{number % 7}")
        trail.refused(None, "GET /v1/sandboxes", "", "AUTHENTICATION_REQUIRED", origin)
    trail.refused(ALICE, "DELETE /v1/sandboxes/{sandbox_id}", "x", "FORBIDDEN", HERE)
    found = await entries(world, action="request.refused")
    mine = [each for each in found if each.actor == "alice"]
    assert [(each.outcome, each.subject, each.namespace) for each in mine] == [("FORBIDDEN", "x", "default")]
    others = [each for each in found if each.actor == "anonymous"]
    assert len(others) <= audit.MAX_ANONYMOUS_STREAMS * (audit.BURST_ANONYMOUS + 1) + 2
    assert sum(each.details.get("count", 1) for each in others) == 20_000
    assert trail.lost == 0


async def test_what_does_not_fit_is_told(world: World) -> None:
    trail = world.engine.audit
    for number in range(audit.MAX_WAITING + 5):
        trail.note(ALICE.event("lease.opened", f"l{number}", at=world.clock()))
    gap = (await entries(world, action="audit.gap"))[0]
    assert (gap.details, gap.actor, trail.lost) == ({"count": 5}, "system", 5)
    assert len(await entries(world, subject="l0")) == 1


async def test_what_the_store_does_not_take_is_written_later(world: World) -> None:
    sandbox_id = (await world.create()).sandbox.id
    run(world, sandbox_id)
    await world.database.close()
    await world.engine.audit.flush()
    assert world.engine.audit.lost == 0
    world.database = type(world.database).at_path(world.directory / "cove.db")
    await world.database.open()
    world.store = world.database
    world.engine.audit._store = world.database  # pyright: ignore[reportPrivateUsage]
    assert [each.subject for each in await entries(world, action="code.")] == [sandbox_id]


def event(at: float) -> StoredEvent:
    return StoredEvent(at=at, namespace="default", actor="k", action="a", subject="s")


def test_streams_are_written_once_a_minute_and_forgotten() -> None:
    streams = Aggregation(most=2, burst=1, per_second=0.1)
    assert streams.take("one", event(0.0), 0) is not None
    assert streams.take("one", event(1.0), 0) is None
    assert streams.take("one", event(30.0), 0) is None
    assert streams.due(now=HELD_SECONDS) == []
    (counted,) = streams.due(now=1.0 + HELD_SECONDS)
    assert (counted.at, counted.details) == (1.0, {"count": 2})
    assert streams.take("one", event(62.0), 0) is not None
    assert streams.take("two", event(62.0), 0) is not None
    assert not streams.admits("three")
    assert streams.due(now=100.0) == []
    assert streams.admits("three")


def test_a_stream_that_has_to_go_is_written_first() -> None:
    streams = Aggregation(most=1, burst=1, per_second=0.1)
    for at in (0.0, 1.0, 2.0):
        streams.take("one", event(at), 0)
    assert streams.take("two", event(3.0), 0) is not None
    assert [each.details for each in streams.due(now=3.0)] == [{"count": 2}]
