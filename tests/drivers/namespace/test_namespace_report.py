"""What the namespace driver says of itself where something is missing, and what still works there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import (
    SMALL,
    Inside,
    NamespaceSubject,
    built_template,
    clean_up,
    short_directory,
    spec_of,
)

from cove.drivers.namespace.driver import NamespaceDriver
from cove.host.cgroups import Cgroups, Hierarchies
from cove.models.errors import CoveError
from cove.models.limits import ENFORCED_BY_AGENT, ENFORCED_BY_EGRESS

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("as_root")]


@pytest.fixture
def subject(built_data_dir: Path) -> Iterator[NamespaceSubject]:
    with short_directory() as directory:
        yield NamespaceSubject(directory, built_template(built_data_dir, "base"))


async def test_a_probe_that_fails_is_a_verdict(subject: NamespaceSubject) -> None:
    (subject.directory / "probe").write_text("in the way")
    driver = subject.open()
    report = await driver.check()
    assert not report.available
    assert str(subject.directory / "probe") in report.problems[0]
    assert report.remedies
    assert await driver.check() == report
    await driver.close()
    await clean_up(subject)


async def test_without_cgroups_and_disks_it_works_and_says_what_is_lost(subject: NamespaceSubject) -> None:
    nothing = Cgroups(Hierarchies({}, None, frozenset()))
    driver = NamespaceDriver(subject.directory, cgroups=nothing, disks=None)
    try:
        report = await driver.check()
        assert report.available, report.problems
        assert not report.capabilities.pause
        assert report.capabilities.limits == {"disk_mb", "pids", "open_files"} | ENFORCED_BY_AGENT | ENFORCED_BY_EGRESS
        assert "memory_mb" in " ".join(report.lost)
        assert "disk is memory" in " ".join(report.lost)
        record = await driver.create(spec_of(subject, SMALL), subject.template)
        try:
            filled = await Inside(record).run("cat /dev/zero > /workspace/big")
            assert "No space left on device" in filled["stderr"]
            with pytest.raises(CoveError) as caught:
                await driver.pause(record)
            assert caught.value.code == "UNSUPPORTED"
            assert not report.capabilities.stop_start
            with pytest.raises(CoveError) as caught:
                await driver.stop(record)
            assert (caught.value.code, bool(caught.value.remedy)) == ("UNSUPPORTED", True)
            assert await Inside(record).output("echo untouched") == "untouched"
        finally:
            await driver.destroy(record)
    finally:
        await driver.close()
    await clean_up(subject)
