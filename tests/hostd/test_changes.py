"""What ended by itself, told as it happens: bounded, restart-safe, and to several who ask."""

import asyncio
import time

import pytest
from tests.contract.driver_fixtures import until
from tests.hostd.conftest import Setting, spec

from cove.hostd.changes import ChangeLog
from cove.models.errors import CoveError
from cove.models.identifiers import new_sandbox_id

pytestmark = pytest.mark.anyio


async def test_the_first_question_says_that_all_has_to_be_compared() -> None:
    log = ChangeLog()
    for cursor in ("", "x", "other.3", "\0", "." * 90, f"{log!r}.1"):
        answer = await log.since(cursor, 10.0)
        assert (answer.complete, answer.ended) == (False, ())
    assert (await log.since(answer.cursor, 0.0)).complete


async def test_endings_come_in_order_and_once() -> None:
    log = ChangeLog()
    cursor = (await log.since("", 0.0)).cursor
    names = [new_sandbox_id() for _ in range(3)]
    for name in names:
        log.note(name, "memory 512 MiB" if name == names[1] else "")
    answer = await log.since(cursor, 10.0)
    assert (answer.ended, answer.complete) == (tuple(names), True)
    assert answer.reasons == {names[1]: "memory 512 MiB"}
    assert [log.reason_of(name) for name in (*names, "x")] == ["", "memory 512 MiB", "", ""]
    again = await log.since(answer.cursor, 0.01)
    assert (again.ended, again.cursor, again.complete) == ((), answer.cursor, True)
    assert (await log.since(cursor, 0.0)).ended == tuple(names)


async def test_everyone_who_waits_hears_of_it() -> None:
    log = ChangeLog()
    cursor = (await log.since("", 0.0)).cursor
    waiting = [asyncio.create_task(log.since(cursor, 30.0)) for _ in range(5)]
    await asyncio.sleep(0)
    name = new_sandbox_id()
    log.note(name)
    async with asyncio.timeout(5):
        assert [answer.ended for answer in await asyncio.gather(*waiting)] == [(name,)] * 5


async def test_who_missed_more_than_is_kept_is_told() -> None:
    log = ChangeLog()
    cursor = (await log.since("", 0.0)).cursor
    for _ in range(5000):
        log.note("x")
    answer = await log.since(cursor, 0.0)
    assert not answer.complete
    assert len(answer.ended) <= 1024


async def test_numbers_from_the_future_are_nobodys() -> None:
    log = ChangeLog()
    epoch = (await log.since("", 0.0)).cursor.partition(".")[0]
    for number in ("1", "99999999999999999999999", "-1", "\u0661", ""):
        assert not (await log.since(f"{epoch}.{number}", 30.0)).complete


async def test_a_host_tells_of_crashes_and_deadlines_but_not_of_what_it_was_asked_to_do(setting: Setting) -> None:
    host = await setting.host()
    cursor = (await host.changes("", 0.0)).cursor
    crashed, due = await host.create(spec()), await host.create(spec(deadline=time.time() + 0.3))
    killed, stopped = await host.create(spec()), await host.create(spec())
    await host.destroy(killed.sandbox_id)
    await host.stop(stopped.sandbox_id, {})
    setting.driver.limit = "memory 512 MiB"
    await setting.driver.destroy(crashed)
    first = await host.changes(cursor, 10.0)
    assert (first.ended, first.complete) == ((crashed.sandbox_id,), True)
    assert first.reasons == {crashed.sandbox_id: "memory 512 MiB"}
    await until(lambda: crashed.sandbox_id not in setting.recorded())
    with pytest.raises(CoveError) as caught:
        await host.pause(crashed.sandbox_id)
    assert (caught.value.code, caught.value.details) == ("SANDBOX_NOT_FOUND", {"limit": "memory 512 MiB"})
    second = await host.changes(first.cursor, 10.0)
    assert (second.ended, second.reasons) == ((due.sandbox_id,), {})
    await until(lambda: setting.recorded() == {stopped.sandbox_id})


async def test_after_a_restart_all_has_to_be_compared(setting: Setting) -> None:
    first = await setting.host()
    cursor = (await first.changes("", 0.0)).cursor
    await first.close(destroy=False)
    assert not (await (await setting.host()).changes(cursor, 30.0)).complete
