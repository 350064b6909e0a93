"""The host over its drivers: identities, limits, deadlines, records, restarts."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import until
from tests.hostd.conftest import STEPS, LastingDriver, Setting, spec

from cove.hostd.local_host import LocalHost
from cove.models.errors import CoveError, error
from cove.models.hosts import HostState, SandboxRecord
from cove.models.identifiers import new_sandbox_id
from cove.models.isolation import Isolation

pytestmark = pytest.mark.anyio


def codes(results: list[SandboxRecord | BaseException]) -> list[str]:
    return [result.code for result in results if isinstance(result, CoveError)]


async def test_what_is_created_is_listed_recorded_and_counted(setting: Setting) -> None:
    host = await setting.host()
    record = await host.create(spec())
    assert await host.list() == (record,)
    assert setting.recorded() == {record.sandbox_id}
    capacity = await host.capacity()
    assert (capacity.host_id, capacity.sandboxes, capacity.max_sandboxes) == ("here", 1, 100)
    assert capacity.memory_bytes > 2**20
    await host.destroy(record.sandbox_id)
    await host.destroy(record.sandbox_id)
    assert await host.list() == ()
    assert setting.recorded() == set()


async def test_an_id_is_used_once_also_at_the_same_time(setting: Setting) -> None:
    host = await setting.host()
    asked = spec()
    results = await asyncio.gather(*(host.create(asked) for _ in range(3)), return_exceptions=True)
    assert codes(results) == ["CONFLICT"] * 2
    with pytest.raises(CoveError, match="exists already"):
        await host.create(asked)
    assert len(setting.driver.sandboxes) == 1


async def test_capacity_holds_also_for_concurrent_creates(setting: Setting) -> None:
    host = await setting.host(max_sandboxes=2)
    results = await asyncio.gather(*(host.create(spec()) for _ in range(5)), return_exceptions=True)
    assert codes(results) == ["CAPACITY_EXHAUSTED"] * 3
    assert len(await host.list()) == 2
    await host.destroy((await host.list())[0].sandbox_id)
    await host.create(spec())


async def test_a_create_that_fails_takes_no_place(setting: Setting) -> None:
    host = await setting.host(max_sandboxes=1)
    setting.driver.failures.append(error("SANDBOX_START_FAILED", "no"))
    asked = spec()
    with pytest.raises(CoveError, match="no"):
        await host.create(asked)
    assert setting.driver.doubts == 1
    setting.driver.failures.append(error("DISK_FULL", "no room"))
    with pytest.raises(CoveError, match="no room"):
        await host.create(asked)
    assert (await host.create(asked)).sandbox_id == asked.sandbox_id
    assert setting.driver.doubts == 1


@pytest.mark.parametrize("name", ["", "x", "../../etc/x", "1763382095i648uu1o\n", "1763382095I648uu1o", "a" * 5000])
async def test_ids_that_are_none_are_refused(setting: Setting, name: str) -> None:
    host = await setting.host()
    with pytest.raises(CoveError) as caught:
        await host.create(spec(sandbox_id=name))
    assert caught.value.code == "INVALID_REQUEST"
    assert not setting.driver.sandboxes


async def test_unknown_templates_and_isolations_are_refused(setting: Setting) -> None:
    host = await setting.host()
    for fields, code in (
        ({"template": "nothing"}, "TEMPLATE_NOT_FOUND"),
        ({"template": "../base"}, "TEMPLATE_NOT_FOUND"),
        ({"template": "code-interpreter"}, "TEMPLATE_NOT_BUILT"),
        ({"isolation": "microvm"}, "ISOLATION_UNAVAILABLE"),
    ):
        with pytest.raises(CoveError) as caught:
            await host.create(spec(**fields))
        assert caught.value.code == code
        assert caught.value.remedy
    assert await host.list() == ()


async def test_the_strongest_isolation_that_works_is_taken(setting: Setting) -> None:
    weak = LastingDriver(setting.sockets, Isolation.NAMESPACE)
    strong = LastingDriver(setting.sockets, Isolation.GVISOR)
    broken = LastingDriver(setting.sockets, Isolation.MICROVM, problem="no hardware")
    host = await setting.host(weak, broken, strong)
    await host.create(spec())
    await host.warm("base")
    assert (len(strong.sandboxes), strong.warmed) == (1, ["base"])
    await host.create(spec(isolation="namespace"))
    assert len(weak.sandboxes) == 1
    with pytest.raises(CoveError) as caught:
        await host.create(spec(isolation="microvm"))
    assert caught.value.code == "ISOLATION_UNAVAILABLE"
    assert "no hardware" in caught.value.message
    assert caught.value.remedy == "repair it"
    assert [report.available for report in await host.check()] == [True, False, True]


async def test_a_default_isolation_is_insisted_on(setting: Setting) -> None:
    weak, strong = LastingDriver(setting.sockets, Isolation.NAMESPACE), LastingDriver(setting.sockets, Isolation.GVISOR)
    host = await setting.host(weak, strong, default=Isolation.NAMESPACE)
    await host.create(spec())
    assert len(weak.sandboxes) == 1


async def test_without_a_stronger_one_the_weakest_is_taken_and_says_itself_what_is_wrong(setting: Setting) -> None:
    strong = LastingDriver(setting.sockets, Isolation.GVISOR, problem="no gvisor")
    weak = LastingDriver(setting.sockets, Isolation.FAKE, problem="not probed")
    host = await setting.host(weak, strong)
    weak.failures.append(error("SANDBOX_START_FAILED", "no namespaces"))
    with pytest.raises(CoveError) as caught:
        await host.create(spec())
    assert (caught.value.code, caught.value.message) == ("SANDBOX_START_FAILED", "no namespaces")
    assert strong.sandboxes == {}
    await host.create(spec())
    assert len(weak.sandboxes) == 1


async def test_pool_members_are_claimed_once(setting: Setting) -> None:
    host = await setting.host()
    member = await host.create(spec(pooled=True))
    claimed = await host.claim(member.sandbox_id, 4e9)
    assert (claimed.pooled, claimed.deadline) == (False, 4e9)
    assert setting.records.load() == (claimed,)
    with pytest.raises(CoveError) as caught:
        await host.claim(member.sandbox_id, None)
    assert caught.value.code == "CONFLICT"


async def test_unknown_sandboxes_are_not_found(setting: Setting) -> None:
    host = await setting.host()
    name = new_sandbox_id()
    for call in (host.claim(name, None), host.set_deadline(name, 1.0), host.pause(name), host.resume(name)):
        with pytest.raises(CoveError) as caught:
            await call
        assert caught.value.code == "SANDBOX_NOT_FOUND"
    with pytest.raises(CoveError):
        await host.usage(name)
    await host.destroy(name)


async def test_pause_and_resume_are_recorded(setting: Setting) -> None:
    host = await setting.host()
    name = (await host.create(spec())).sandbox_id
    for call, state in (
        (host.pause, HostState.PAUSED),
        (host.pause, HostState.PAUSED),
        (host.resume, HostState.RUNNING),
    ):
        await call(name)
        assert [record.state for record in setting.records.load()] == [state]
    await host.pause(name)
    await host.destroy(name)


async def gone(host: LocalHost, name: str) -> None:
    async with asyncio.timeout(10):
        while any(record.sandbox_id == name for record in await host.list()):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("deadline", [0.0, 1.0, -5.0])
async def test_a_deadline_in_the_past_ends_it_at_once(setting: Setting, deadline: float) -> None:
    host = await setting.host()
    record, other = await host.create(spec(deadline=deadline)), await host.create(spec())
    await gone(host, record.sandbox_id)
    assert await host.list() == (other,)


async def test_deadlines_are_kept_and_can_be_moved(setting: Setting) -> None:
    host = await setting.host()
    moved = await host.create(spec(deadline=time.time() + 1000))
    spared = await host.create(spec(deadline=time.time() + 0.5))
    await host.set_deadline(spared.sandbox_id, None)
    due = time.time() + 0.1
    await host.set_deadline(moved.sandbox_id, due)
    await gone(host, moved.sandbox_id)
    assert due <= time.time() < due + 2
    assert setting.recorded() == {spared.sandbox_id}
    assert await host.usage(spared.sandbox_id)


async def test_a_deadline_survives_a_restart(setting: Setting) -> None:
    first = await setting.host()
    due = time.time() + 0.3
    name = (await first.create(spec())).sandbox_id
    lasting = (await first.create(spec())).sandbox_id
    await first.set_deadline(name, due)
    await first.close(destroy=False)
    second = await setting.host()
    assert {record.sandbox_id for record in await second.list()} == {name, lasting}
    await gone(second, name)
    assert due <= time.time() < due + 2
    assert setting.recorded() == {lasting}


async def test_a_restart_forgets_the_dead_and_sweeps_the_unknown(setting: Setting) -> None:
    first = await setting.host()
    dead, unknown, kept = [await first.create(spec()) for _ in range(3)]
    await first.close(destroy=False)
    await setting.driver.destroy(dead)
    setting.records.remove(unknown.sandbox_id)
    (setting.record_dir / "1763382095i648uu1o.json").write_text("{")
    (setting.record_dir / f"{kept.sandbox_id}.new").write_text(kept.model_copy(update={"pid": 1}).model_dump_json())
    second = await setting.host()
    assert await second.list() == (kept,)
    assert set(setting.driver.sandboxes) == {kept.sandbox_id}
    assert [path.name for path in setting.record_dir.iterdir()] == [f"{kept.sandbox_id}.json"]


async def test_a_sandbox_that_dies_by_itself_is_forgotten(setting: Setting) -> None:
    host = await setting.host()
    record = await host.create(spec())
    await setting.driver.destroy(record)
    await gone(host, record.sandbox_id)
    assert setting.recorded() == set()


async def test_a_sandbox_that_cannot_be_recorded_is_ended(setting: Setting) -> None:
    host = await setting.host()
    shutil.rmtree(setting.record_dir)
    with pytest.raises(CoveError) as caught:
        await host.create(spec())
    setting.record_dir.mkdir()
    assert caught.value.code == "SANDBOX_START_FAILED"
    assert "record" in caught.value.message
    assert not setting.driver.sandboxes
    assert await host.list() == ()


async def test_a_create_that_is_given_up_leaves_nothing(setting: Setting) -> None:
    host = await setting.host(max_sandboxes=1)
    setting.driver.gate.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await host.create(spec())
    setting.driver.gate.set()
    assert not setting.driver.sandboxes
    await host.create(spec())


async def test_ends_at_the_same_time_agree(setting: Setting) -> None:
    host = await setting.host()
    record = await host.create(spec(deadline=time.time() + 0.05))
    await asyncio.gather(*(host.destroy(record.sandbox_id) for _ in range(5)), setting.driver.destroy(record))
    assert await host.list() == ()


async def test_close_ends_all(setting: Setting) -> None:
    host = await setting.host()
    for _ in range(20):
        await host.create(spec())
    await host.close(destroy=True)
    assert setting.recorded() == set()
    assert not setting.driver.sandboxes


async def test_builds_report_their_steps_or_why_they_failed(setting: Setting) -> None:
    host = await setting.host()
    assert [template.name for template in await host.templates()] == ["base"]
    assert [step async for step in host.build_template("base")] == list(STEPS)
    seen: list[object] = []
    with pytest.raises(CoveError) as caught:
        async for step in host.build_template("broken"):
            seen.append(step)
    assert (seen, caught.value.code, caught.value.remedy) == ([STEPS[0]], "TEMPLATE_BUILD_FAILED", "mend it")


async def test_sockets_are_where_the_records_say(setting: Setting) -> None:
    host = await setting.host()
    record = await host.create(spec())
    await until(Path(record.socket_path).is_socket)


async def test_a_limit_that_was_asked_for_is_enforced_or_refused(setting: Setting) -> None:
    host = await setting.host()
    enforced = (await setting.driver.check()).capabilities.limits
    refused = sorted({"vcpu", "memory_mb", "disk_mb", "nonsense"} - enforced)
    with pytest.raises(CoveError) as caught:
        await host.create(spec(required_limits=frozenset(refused)))
    assert caught.value.code == "LIMIT_NOT_ENFORCEABLE"
    assert caught.value.details["limits"] == refused
    assert not setting.driver.sandboxes
    await host.create(spec(required_limits=enforced))


async def test_a_template_that_is_built_anew_by_another_program_is_noticed(setting: Setting) -> None:
    host = await setting.host()
    assert (await host.create(spec())).template_digest == "d"
    path = setting.directory / "templates/base.json"
    path.write_text(path.read_text().replace('"digest":"d"', '"digest":"e"'))
    assert (await host.create(spec())).template_digest == "e"
