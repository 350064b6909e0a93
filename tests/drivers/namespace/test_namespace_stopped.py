"""Stopped sandboxes of the namespace driver: old versions of templates, user ids, links that were left on the disk."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import Inside, fork_servers, spec_of, until
from tests.drivers.namespace.conftest import Ground, Maker

from cove.models.errors import CoveError
from cove.models.hosts import HostState

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("as_root")]


async def test_an_old_version_runs_beside_the_new_one_and_keeps_no_warm_process(ground: Ground) -> None:
    subject, driver = ground
    old = subject.template.model_copy(update={"digest": "version-1"})
    new = old.model_copy(update={"digest": "version-2", "built_at": old.built_at + timedelta(hours=1)})
    record = await driver.create(spec_of(subject), old)
    await Inside(record).output("echo kept > /workspace/file")
    stopped = await driver.stop(record)
    current = await driver.create(spec_of(subject), new)
    try:
        record = await driver.start(stopped, old, {})
        assert await Inside(record).output("cat /workspace/file") == "kept"
        later = await driver.create(spec_of(subject), new)
        await driver.destroy(later)
        await driver.destroy(record)  # an orphan of the old fork server, which would be there still
        await until(lambda: len(fork_servers(subject)) == 1)
    finally:
        for each in (record, current):
            await driver.destroy(each)


async def test_two_sandboxes_never_run_with_the_same_user_ids(ground: Ground, make: Maker) -> None:
    """As a damaged record would have it."""
    subject, driver = ground
    running, other = await make(), await make()
    stopped = await driver.stop(other)
    same = stopped.driver_state | {"slot": running.driver_state["slot"]}
    next_driver = subject.open()
    try:
        assert await next_driver.adopt(running)
        assert await next_driver.adopt(stopped.model_copy(update={"driver_state": same}))
        with pytest.raises(CoveError) as caught:
            await next_driver.start(stopped, subject.template, {})
        assert (caught.value.code, bool(caught.value.remedy)) == ("CONFLICT", True)
    finally:
        await next_driver.close()


async def test_no_link_of_a_sandbox_is_followed_when_it_starts(ground: Ground, make: Maker) -> None:
    """What the user may replace is made anew as the user's; what is below is left alone."""
    _, driver = ground
    record = await make()
    await Inside(record).output(
        "cd ~ && rm -rf .cache .config && ln -s /etc .cache && ln -s / .config; cd /workspace && ln -s /etc/shadow link"
        "; mkfifo /tmp/fifo; ln -s /dev/zero /tmp/zero; mkdir -m 000 /workspace/closed; chmod 000 /workspace ~"
    )
    look = "stat -c '%n %u %a' /etc / /etc/passwd; ls -ld /tmp | cut -c1-10"
    before = await Inside(record).output(look, working_dir="/")
    for _ in range(2):
        record = await driver.start(await driver.stop(record), ground.subject.template, {})
        assert record.state is HostState.RUNNING
        assert await Inside(record).output(look, working_dir="/") == before
    seen = await Inside(record).output("chmod 755 /workspace; readlink /workspace/link", working_dir="/")
    assert seen == "/etc/shadow"
    await driver.destroy(record)


async def test_a_full_disk_can_be_stopped_and_started(ground: Ground, make: Maker) -> None:
    _, driver = ground
    record = await make()
    await Inside(record).run("cat /dev/zero > /workspace/big")
    record = await driver.start(await driver.stop(record), ground.subject.template, {})
    assert await Inside(record).output("rm /workspace/big; echo room > /workspace/file; cat /workspace/file") == "room"
    await driver.destroy(record)


async def test_the_image_is_readable_for_the_host_alone(ground: Ground, make: Maker) -> None:
    subject, driver = ground
    stopped = await driver.stop(await make())
    image = Path(subject.directory, "disks", f"{stopped.driver_state['kit']}.img")
    assert image.stat().st_mode & 0o777 == 0o600
    assert image.parent.stat().st_mode & 0o777 == 0o700
    await driver.destroy(stopped)
    assert not image.exists()
