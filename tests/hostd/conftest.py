"""Local hosts over drivers that isolate nothing, and what they serve."""

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import short_directory

from cove.drivers.fake import FakeDriver
from cove.host.authority import load_authority
from cove.host.records import RecordStore
from cove.host.templates.store import OnProgress, TemplateStore
from cove.host.templates.trust import TrustLayers
from cove.hostd.host_templates import HostTemplates
from cove.hostd.local_host import LocalHost
from cove.hostd.networks import SandboxNetworks
from cove.hostd.secrets import SandboxSecrets
from cove.hostd.template_versions import TemplateVersions
from cove.models.errors import error
from cove.models.hosts import SandboxRecord, SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.isolation import Capabilities, DriverReport, Isolation
from cove.models.templates import BuildProgress, TemplateManifest

STEPS = (BuildProgress(step="first", fraction=0.25), BuildProgress(step="second", fraction=1.0))


class LastingDriver(FakeDriver):
    """A fake driver whose sandboxes survive a daemon, as those of real drivers do; its probe may fail.

    Attributes:
        warmed: names of templates that were to be warmed.
        started: the templates that stopped sandboxes were started on.
        stoppable: whether it can stop and start.
    """

    stoppable = True

    def __init__(self, directory: Path, level: Isolation = Isolation.FAKE, *, problem: str = "") -> None:
        super().__init__(directory)
        self._level = level
        self._problem = problem
        self.warmed: list[str] = []
        self.started: list[TemplateManifest] = []

    @property
    def isolation(self) -> Isolation:
        return self._level

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(pause=True, stop_start=self.stoppable)

    async def check(self, *, fresh: bool = False) -> DriverReport:
        return DriverReport(
            isolation=self._level,
            available=not self._problem,
            summary="fake",
            capabilities=self.capabilities,
            problems=(self._problem,) if self._problem else (),
            remedies=("repair it",) if self._problem else (),
        )

    async def create(self, spec: SandboxSpec, template: TemplateManifest) -> SandboxRecord:
        await super().create(spec, template)
        return self.update(spec.sandbox_id, isolation=self._level)

    async def start(
        self, record: SandboxRecord, template: TemplateManifest, env_vars: Mapping[str, str]
    ) -> SandboxRecord:
        self.started.append(template)
        return await super().start(record, template, env_vars)

    async def warm(self, template: TemplateManifest) -> None:
        self.warmed.append(template.name)

    async def close(self) -> None:
        """Nothing is held."""


class SteppingTemplates(TemplateStore):
    """Templates whose build reports two steps and does nothing, or fails."""

    def build(self, name: str, *, on_progress: OnProgress) -> TemplateManifest:
        if name == "broken":
            on_progress(STEPS[0])
            raise error("TEMPLATE_BUILD_FAILED", "It broke.", remedy="mend it", step="first")
        for step in STEPS:
            on_progress(step)
        return self.get(name)


class Setting:
    """One data directory; hosts come and go on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sockets = directory / "sockets"
        self.sockets.mkdir()
        (directory / "templates").mkdir()
        (directory / "layer").mkdir()
        manifest = TemplateManifest(
            name="base",
            display_name="Base",
            description="",
            digest="d",
            layers=(str(directory / "layer"),),
            python="",
            preload=("json",),
            built_at=datetime.now(UTC),
        )
        (directory / "templates/base.json").write_text(manifest.model_dump_json())
        self.records = RecordStore(self.record_dir)
        self.driver = LastingDriver(self.sockets)
        self.drivers: list[LastingDriver] = [self.driver]
        self._hosts: list[LocalHost] = []

    @property
    def record_dir(self) -> Path:
        return self.directory / "records"

    async def host(
        self,
        *drivers: LastingDriver,
        default: Isolation | None = None,
        max_sandboxes: int = 100,
        ceilings: Mapping[str, int] | None = None,
    ) -> LocalHost:
        """A started host; by default over the one driver that all share."""
        secrets = SandboxSecrets(self.directory / "secrets", key=self.directory / "authority/secrets.key")
        host = LocalHost(
            host_id="here",
            drivers={driver.isolation: driver for driver in drivers or (self.driver,)},
            default_isolation=default,
            records=RecordStore(self.record_dir),
            templates=HostTemplates(
                SteppingTemplates(self.directory, owner=None),
                versions=TemplateVersions(self.directory / "versions"),
                trust=TrustLayers(
                    self.directory / "trust",
                    authority=functools.partial(load_authority, self.directory / "authority"),
                    owner=None,
                ),
                builds=self.directory / "builds",
            ),
            max_sandboxes=max_sandboxes,
            secrets=secrets,
            networks=SandboxNetworks(
                self.directory, {}, secrets=secrets, authority=self.directory / "authority", user=None
            ),
            ceilings=ceilings,
        )
        self._hosts.append(host)
        self.drivers += drivers
        await host.open()
        return host

    async def close(self) -> None:
        for host in self._hosts:
            await host.close(destroy=True)
        for driver in self.drivers:
            await driver.sweep(frozenset())

    def recorded(self) -> set[str]:
        """What would be found after a crash now."""
        return {record.sandbox_id for record in self.records.load()}


def spec(**fields: object) -> SandboxSpec:
    return SandboxSpec.model_validate({"sandbox_id": new_sandbox_id(), "template": "base", **fields})


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture
async def setting(directory: Path) -> AsyncIterator[Setting]:
    made = Setting(directory)
    yield made
    async with asyncio.timeout(20):
        await made.close()
    assert made.recorded() == set()
    assert list(made.sockets.iterdir()) == []
