"""Stop and start over the host: records, restarts, deadlines, and calls at the same time."""

import asyncio
import errno
import time
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import accepts, until
from tests.hostd.conftest import Setting, spec

from cove.host.records import RecordStore
from cove.hostd.local_host import LocalHost
from cove.models.errors import CoveError, error
from cove.models.hosts import HostState, SandboxRecord
from cove.models.identifiers import new_sandbox_id

pytestmark = pytest.mark.anyio


async def state_of(host: LocalHost, name: str) -> HostState | None:
    return {record.sandbox_id: record.state for record in await host.list()}.get(name)


def recorded(setting: Setting, name: str) -> SandboxRecord:
    return {record.sandbox_id: record for record in setting.records.load()}[name]


async def test_a_stop_keeps_the_record_and_the_environment_and_a_start_gives_it_back(setting: Setting) -> None:
    host = await setting.host()
    made = await host.create(spec(env_vars={"OLD": "1"}, deadline=4e9))
    for _ in range(2):
        await host.stop(made.sandbox_id, {"A": "b"})
    assert recorded(setting, made.sandbox_id).env_vars == {"A": "b"}
    (listed,) = await host.list()
    assert (listed.state, listed.pid, listed.env_vars, listed.deadline) == (HostState.STOPPED, 0, {}, 4e9)
    assert not accepts(made.socket_path)
    for _ in range(2):
        assert await host.start(made.sandbox_id) == made
    assert setting.driver.sandboxes[made.sandbox_id].env_vars == {"A": "b"}
    assert recorded(setting, made.sandbox_id) == made
    assert accepts(made.socket_path)
    await setting.driver.destroy(made)  # it is watched again
    await until(lambda: not setting.recorded())


async def test_stopped_sandboxes_count_and_keep_their_place(setting: Setting) -> None:
    host = await setting.host(max_sandboxes=1)
    made = await host.create(spec())
    await host.stop(made.sandbox_id, {})
    assert (await host.capacity()).sandboxes == 1
    with pytest.raises(CoveError) as caught:
        await host.create(spec())
    assert caught.value.code == "CAPACITY_EXHAUSTED"
    await host.start(made.sandbox_id)


async def test_where_nothing_can_be_stopped_nothing_is_touched(setting: Setting) -> None:
    setting.driver.stoppable = False
    host = await setting.host()
    made = await host.create(spec())
    with pytest.raises(CoveError) as caught:
        await host.stop(made.sandbox_id, {"A": "b"})
    assert (caught.value.code, bool(caught.value.remedy)) == ("UNSUPPORTED", True)
    assert await host.list() == (made,)
    assert recorded(setting, made.sandbox_id) == made
    assert accepts(made.socket_path)


async def test_states_that_do_not_fit(setting: Setting) -> None:
    host = await setting.host()
    name, member = (await host.create(spec())).sandbox_id, (await host.create(spec(pooled=True))).sandbox_id
    await host.pause(name)
    for call, code in (
        (host.start(name), "INVALID_STATE"),
        (host.stop(member, {}), "CONFLICT"),
        (host.stop(new_sandbox_id(), {}), "SANDBOX_NOT_FOUND"),
        (host.start(new_sandbox_id()), "SANDBOX_NOT_FOUND"),
    ):
        with pytest.raises(CoveError) as caught:
            await call
        assert caught.value.code == code
    await host.stop(name, {})
    for call in (host.pause(name), host.resume(name)):
        with pytest.raises(CoveError) as caught:
            await call
        assert caught.value.code == "INVALID_STATE"
    assert (await host.usage(name)).memory_bytes == 0


async def test_stopped_sandboxes_outlive_the_host_also_its_orderly_end(setting: Setting) -> None:
    first = await setting.host()
    stopped, running = (await first.create(spec())).sandbox_id, (await first.create(spec())).sandbox_id
    await first.stop(stopped, {"A": "b"})
    await first.close(destroy=True, keep_stopped=True)
    assert setting.recorded() == {stopped}
    second = await setting.host()
    assert running not in {record.sandbox_id for record in await second.list()}
    assert await state_of(second, stopped) is HostState.STOPPED
    await second.start(stopped)
    assert setting.driver.sandboxes[stopped].env_vars == {"A": "b"}
    await second.close(destroy=True)
    assert setting.recorded() == set()


async def test_a_stopped_sandbox_that_is_gone_is_forgotten_at_the_start(setting: Setting) -> None:
    first = await setting.host()
    made = await first.create(spec())
    await first.stop(made.sandbox_id, {})
    await first.close(destroy=False)
    await setting.driver.destroy(made)
    assert await (await setting.host()).list() == ()
    assert setting.recorded() == set()


async def test_the_deadline_of_a_stopped_sandbox_is_kept(setting: Setting) -> None:
    host = await setting.host()
    name = (await host.create(spec(deadline=time.time() + 1000))).sandbox_id
    await host.stop(name, {})
    await host.set_deadline(name, time.time() + 0.1)
    await until(lambda: not setting.recorded(), seconds=3)
    assert not setting.driver.sandboxes


async def test_a_deadline_that_is_moved_during_a_start_counts(setting: Setting) -> None:
    host = await setting.host()
    name = (await host.create(spec(deadline=4e9))).sandbox_id
    await host.stop(name, {})
    setting.driver.gate.clear()
    starting = asyncio.create_task(host.start(name))
    await asyncio.sleep(0)
    await host.set_deadline(name, 5e9)
    setting.driver.gate.set()
    assert (await starting).deadline == 5e9
    assert recorded(setting, name).deadline == 5e9


async def test_a_destroy_during_a_start_leaves_nothing(setting: Setting) -> None:
    host = await setting.host()
    name = (await host.create(spec())).sandbox_id
    await host.stop(name, {})
    setting.driver.gate.clear()
    starting = asyncio.create_task(host.start(name))
    await asyncio.sleep(0)
    ending = asyncio.create_task(host.destroy(name))
    await asyncio.sleep(0)
    setting.driver.gate.set()
    await asyncio.gather(starting, ending)
    assert await host.list() == ()
    assert not setting.driver.sandboxes
    assert setting.recorded() == set()


async def test_calls_at_the_same_time_leave_it_in_one_state(setting: Setting) -> None:
    host = await setting.host()
    name = (await host.create(spec())).sandbox_id
    calls = [call for _ in range(8) for call in (host.stop(name, {"A": "b"}), host.start(name))]
    await asyncio.gather(*calls)
    state = await state_of(host, name)
    assert recorded(setting, name).state is state
    assert accepts(setting.driver.sandboxes[name].record.socket_path) == (state is HostState.RUNNING)


async def test_a_start_that_fails_leaves_it_stopped(setting: Setting) -> None:
    host = await setting.host()
    name = (await host.create(spec())).sandbox_id
    await host.stop(name, {"A": "b"})
    setting.driver.failures.append(error("SANDBOX_START_FAILED", "no"))
    with pytest.raises(CoveError, match="no"):
        await host.start(name)
    assert await state_of(host, name) is HostState.STOPPED
    await host.start(name)
    assert setting.driver.sandboxes[name].env_vars == {"A": "b"}


async def test_a_start_that_cannot_be_recorded_is_undone(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    host = await setting.host()
    made = await host.create(spec())
    await host.stop(made.sandbox_id, {"A": "b"})
    with monkeypatch.context() as full:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(RecordStore, "save", refuse)
        with pytest.raises(CoveError, match="No space left"):
            await host.start(made.sandbox_id)
    assert not accepts(made.socket_path)
    assert await state_of(host, made.sandbox_id) is HostState.STOPPED
    await host.start(made.sandbox_id)
    assert setting.driver.sandboxes[made.sandbox_id].env_vars == {"A": "b"}


async def test_a_stop_that_was_cut_off_is_gone_on_with(setting: Setting) -> None:
    host = await setting.host()
    made = await host.create(spec())
    stop = setting.driver.stop
    setting.driver.stop = _refusing  # type: ignore[method-assign]
    with pytest.raises(CoveError, match="stuck"):
        await host.stop(made.sandbox_id, {"A": "b"})
    assert recorded(setting, made.sandbox_id).state is HostState.STOPPED
    setting.driver.stop = stop  # type: ignore[method-assign]
    await host.start(made.sandbox_id)
    assert setting.driver.sandboxes[made.sandbox_id].env_vars == {"A": "b"}


async def _refusing(record: SandboxRecord) -> SandboxRecord:
    raise error("INTERNAL_ERROR", f"{record.sandbox_id} is stuck.")


async def test_a_sandbox_is_started_on_the_version_of_its_template_that_it_was_made_of(setting: Setting) -> None:
    first = await setting.host()
    name, idle = (await first.create(spec())).sandbox_id, (await first.create(spec())).sandbox_id
    await first.stop(name, {})
    path = setting.directory / "templates/base.json"
    path.write_text(path.read_text().replace('"digest":"d"', '"digest":"e"'))
    assert (await first.create(spec())).template_digest == "e"
    assert (await first.start(name)).template_digest == "d"
    await first.stop(name, {})
    path.unlink()
    await first.close(destroy=False)
    second = await setting.host()
    await second.start(name)
    assert setting.driver.started[-1].digest == "d"
    assert setting.driver.started[-1].preload == ("json",)
    for each in (name, idle):
        await second.destroy(each)
    await second.close(destroy=False)
    await setting.host()
    assert len(list((setting.directory / "versions").iterdir())) == 1  # of the one that still stands on `e`


async def test_a_sandbox_whose_version_has_lost_its_layers_is_not_started(setting: Setting) -> None:
    host = await setting.host()
    name = (await host.create(spec())).sandbox_id
    await host.stop(name, {})
    layer = setting.directory / "layer"
    layer.rename(setting.directory / "elsewhere")
    with pytest.raises(CoveError) as caught:
        await host.start(name)
    assert caught.value.code == "TEMPLATE_NOT_BUILT"
    assert caught.value.remedy
    assert await state_of(host, name) is HostState.STOPPED
    (setting.directory / "elsewhere").rename(layer)
    await host.start(name)


async def test_sockets_of_stopped_sandboxes_are_gone(setting: Setting) -> None:
    host = await setting.host()
    made = await host.create(spec())
    await host.stop(made.sandbox_id, {})
    assert not Path(made.socket_path).exists()
