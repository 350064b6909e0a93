"""The parts that build templates, put together."""

from dataclasses import dataclass
from typing import Final

from cove.core.background import Background
from cove.core.clock import Clock
from cove.core.engine import SandboxEngine
from cove.core.planning import CreationPolicy
from cove.core.ports import Host
from cove.core.storage import Store
from cove.core.template_builds import TemplateBuilds
from cove.server.build_guest import AgentBuildGuest
from cove.server.settings import Settings
from cove.server.uploads import UploadShelf

_GRACE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class TemplateBuilding:
    """Builds, and the archives that they copy from."""

    builds: TemplateBuilds
    shelf: UploadShelf
    background: Background

    async def start(self) -> None:
        """Close what an earlier server left half done.

        Raises:
            CoveError: STORE_UNAVAILABLE.
        """
        await self.builds.recover()

    async def stop(self) -> None:
        """End what is under way: it has failed then."""
        await self.background.close(grace_seconds=_GRACE_SECONDS)


def build_building(
    settings: Settings, store: Store, host: Host, engine: SandboxEngine, policy: CreationPolicy, *, clock: Clock
) -> TemplateBuilding:
    """Put it together; nothing is started yet."""
    shelf, background = UploadShelf(settings.data_dir / "uploads", clock=clock), Background()
    builds = TemplateBuilds(
        host=host,
        store=store,
        catalog=engine.catalog,
        creator=engine.creator,
        guest=AgentBuildGuest(),
        uploads=shelf,
        background=background,
        policy=policy,
        directory=settings.data_dir / "builds",
        clock=clock,
    )
    return TemplateBuilding(builds, shelf, background)
