"""A namespace driver, and two sandboxes of it to look around in."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

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
from cove.models.hosts import SandboxRecord
from cove.models.limits import Limits

SECRET = "a-secret-of-the-host"


class Ground(NamedTuple):
    """A driver and what it works on."""

    subject: NamespaceSubject
    driver: NamespaceDriver


class Maker(Protocol):
    """Makes a sandbox that goes with its test."""

    async def __call__(self, limits: Limits = SMALL) -> SandboxRecord: ...


@pytest.fixture(scope="module")
def host_variable() -> Iterator[str]:
    """A variable that is in the host's environment while the driver starts everything."""
    os.environ["COVE_TEST_SECRET"] = SECRET
    yield SECRET
    del os.environ["COVE_TEST_SECRET"]


@pytest.fixture(scope="module", params=["base"])
async def ground(request: pytest.FixtureRequest, built_data_dir: Path, host_variable: str) -> AsyncIterator[Ground]:
    """One driver a module; at its end nothing is left."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with short_directory() as directory:
        subject = NamespaceSubject(directory, built_template(built_data_dir, str(request.param)))
        driver = subject.open()
        try:
            yield Ground(subject, driver)
        finally:
            await driver.close()
            await clean_up(subject)


@pytest.fixture(scope="module")
async def pair(ground: Ground) -> AsyncIterator[tuple[Inside, Inside]]:
    """Two sandboxes that tests only look at."""
    records: list[SandboxRecord] = []
    try:
        for _ in range(2):
            records.append(await ground.driver.create(spec_of(ground.subject), ground.subject.template))
        yield Inside(records[0]), Inside(records[1])
    finally:
        for record in records:
            await ground.driver.destroy(record)


@pytest.fixture
def inside(pair: tuple[Inside, Inside]) -> Inside:
    """One of them."""
    return pair[0]


@pytest.fixture
async def make(ground: Ground) -> AsyncIterator[Maker]:
    """Sandboxes for one test, that it may ill-treat."""
    records: list[SandboxRecord] = []

    async def make_one(limits: Limits = SMALL) -> SandboxRecord:
        records.append(await ground.driver.create(spec_of(ground.subject, limits), ground.subject.template))
        return records[-1]

    yield make_one
    for record in records:
        await ground.driver.destroy(record)
