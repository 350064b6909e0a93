"""The log of events only grows: the database refuses the rest. Its pages are bounded, and stay where they were."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection

from cove.models.errors import CoveError
from cove.models.stored import EventQuery, StoredEvent
from cove.store import events
from cove.store.database import Database
from cove.store.engine import WRITES, open_engine, sqlite_url
from cove.store.migrate import alembic_config

pytestmark = pytest.mark.anyio

SANDBOX = "1763382095i648uu1o"
ALL = EventQuery(namespace="*")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.at_path(tmp_path / "cove.db") as opened:
        yield opened


def event(number: int = 1, **changes: Any) -> StoredEvent:
    made = StoredEvent(at=float(number), namespace="a", actor="k", action="x.y", subject=f"s{number}")
    return replace(made, **changes)


async def add(database: Database, *added: StoredEvent) -> None:
    await database.write(lambda unit: unit.events.extend(added))


async def page(database: Database, query: EventQuery) -> tuple[list[str], int | None]:
    found = await database.read(lambda unit: unit.events.page(query))
    return [each.subject for each in found.events], found.before


async def attempt(database: Database, *statements: str) -> str:
    """What the database says to statements of whoever has a connection."""

    def work(unit: Any) -> None:
        connection: Connection = unit._connection
        for statement in statements:
            connection.exec_driver_sql(statement)

    with pytest.raises(CoveError) as caught:
        await database.write(work)
    return f"{caught.value} {caught.value.__cause__}"


async def test_entries_are_neither_changed_nor_dropped_nor_replaced(database: Database) -> None:
    await add(database, event(1), event(2))
    for statements in (
        ["UPDATE events SET actor = 'somebody else'"],
        ["UPDATE events SET details = '{}' WHERE id = 1"],
        ["DELETE FROM events"],
        ["DELETE FROM events WHERE id = 1"],
        [
            "INSERT OR REPLACE INTO events (id, at, namespace, actor, action, subject, details)"
            " VALUES (1, 1.0, 'a', 'other', 'x', 's', '{}')"
        ],
        ["UPDATE event_retention SET older_than = 1.5", "DELETE FROM events"],
    ):
        assert "append-only" in await attempt(database, *statements), statements
    now = "CAST(strftime('%%s', 'now') AS REAL)".replace("%%", "%")
    assert "for a day" in await attempt(database, f"UPDATE event_retention SET older_than = {now} - 80000")
    assert "one row" in await attempt(database, "INSERT INTO event_retention VALUES (2, 1e9)")
    assert (await page(database, ALL))[0] == ["s2", "s1"]


async def test_retention_drops_the_old_and_keeps_the_newest(database: Database) -> None:
    await add(database, *(event(number) for number in range(1, 6)))
    assert await database.write(lambda unit: unit.events.prune(before=3.0)) == 2
    assert (await page(database, ALL))[0] == ["s5", "s4", "s3"]
    assert await database.write(lambda unit: unit.events.prune(before=100.0)) == 2
    await add(database, event(9))
    found = await database.read(lambda unit: unit.events.page(ALL))
    assert [each.id for each in found.events] == [6, 5]
    assert "append-only" in await attempt(database, "DELETE FROM events")


async def test_pages_filter(database: Database) -> None:
    of_sandbox = event(2, subject=SANDBOX, action="sandbox.created", request_id="r", address="::1", outcome="ok")
    about_it = event(3, subject="exec_1", action="execution.queued", details={"sandbox_id": SANDBOX})
    refused = event(4, namespace="b", actor="j", action="request.refused", outcome="FORBIDDEN")
    await add(database, event(1), of_sandbox, about_it, refused)
    found = await database.read(lambda unit: unit.events.page(replace(ALL, subject=SANDBOX)))
    assert [replace(each, id=None) for each in found.events] == [of_sandbox]
    for query, expected in (
        ({"namespace": "a"}, ["exec_1", SANDBOX, "s1"]),
        ({"namespace": "b"}, ["s4"]),
        ({"sandbox_id": SANDBOX}, ["exec_1", SANDBOX]),
        ({"sandbox_id": SANDBOX, "namespace": "b"}, []),
        ({"actor": "j"}, ["s4"]),
        ({"action": "sandbox."}, [SANDBOX]),
        ({"action": "_ex"}, []),
        ({"outcome": "FORBIDDEN"}, ["s4"]),
        ({"since": 3.0}, ["s4", "exec_1"]),
        ({"since": 2.0, "until": 3.0}, [SANDBOX]),
    ):
        assert await page(database, replace(ALL, **query)) == (expected, None), query  # pyright: ignore


async def test_a_cursor_stays_where_it_was_while_entries_are_added(database: Database) -> None:
    await add(database, *(event(number) for number in range(20)))
    seen: list[str] = []
    query = replace(ALL, limit=6)
    while True:
        subjects, before = await page(database, query)
        seen += subjects
        await add(database, event(99), event(98))
        if before is None:
            break
        query = replace(query, before=before)
    assert seen == [f"s{number}" for number in range(19, -1, -1)]


async def test_a_page_looks_through_so_many_and_says_where_to_go_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOKED_THROUGH", 10)
    await add(database, event(0, actor="rare"), *(event(number) for number in range(1, 35)))
    query, seen, pages = replace(ALL, actor="rare"), [""], 0
    while True:
        subjects, before = await page(database, query)
        seen, pages = seen + subjects, pages + 1
        if before is None:
            break
        query = replace(query, before=before)
    assert (seen[1:], pages) == (["s0"], 4)
    late = replace(ALL, since=1e9)
    assert await page(database, late) == ([], None)  # what is older by far is not looked through


async def test_what_clients_chose_is_cut_and_holds_no_control_characters(database: Database) -> None:
    nasty = "a\r\nb\x1b[31m\u202e\u2028" + "x" * 500
    details = {"name": nasty, "list": [nasty] * 100, "deep": {"a": {"b": {"c": 1}}}, nasty: 1}
    await add(database, event(1, actor=nasty, subject=nasty, request_id=nasty, address=nasty, details=details))
    found = (await database.read(lambda unit: unit.events.page(ALL))).events[0]
    texts = [found.actor, found.subject, found.request_id, found.address, *found.details, *found.details["list"]]
    assert all(text.isprintable() and len(text) <= 300 for text in texts)
    assert found.actor.startswith("a\ufffd\ufffdb\ufffd[31m")
    assert (len(found.actor), len(found.details["list"])) == (64, 20)


async def test_entries_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "cove.db"
    engine = open_engine(sqlite_url(path))
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        connection.exec_driver_sql(
            "INSERT INTO events (at, namespace, actor, action, subject, details) VALUES"
            f" (1.0, 'default', 'k', 'sandbox.created', '{SANDBOX}', '{{}}')"
        )
    engine.dispose()
    async with Database.at_path(path) as database:
        assert await page(database, replace(ALL, sandbox_id=SANDBOX, outcome="ok")) == ([SANDBOX], None)
