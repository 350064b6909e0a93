"""Templates that nobody has built yet on this machine: built as soon as a server runs, and told about meanwhile."""

import asyncio
from collections.abc import Sequence

import structlog

from cove.core.catalog import TemplateCatalog
from cove.core.ports import Host
from cove.models.errors import CoveError, error
from cove.models.templates import BuildProgress

_PAUSE_SECONDS = 30.0
_NOTHING_YET = BuildProgress(step="starting", fraction=0.0)


class FirstBuilds:
    """Builds what is missing, one after the other; one that fails is tried again. Creates are told how far it is."""

    def __init__(self, host: Host, catalog: TemplateCatalog, names: Sequence[str]) -> None:
        self._host = host
        self._catalog = catalog
        self._names = names
        self._log = structlog.get_logger("cove.templates")

    async def run(self) -> None:
        """Return when all are built; cancel it to give up. A step that is under way on the host goes on."""
        built = self._catalog.digests()
        missing = [name for name in self._names if name not in built]
        for name in missing:
            self._catalog.unbuilt[name] = being_built(name, _NOTHING_YET)
        for name in missing:
            while not await self._build(name):  # noqa: ASYNC110 (there is nothing to wait for but time)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _build(self, name: str) -> bool:
        self._log.info("template_build_started", template=name)
        try:
            async for progress in self._host.build_template(name):
                self._catalog.unbuilt[name] = being_built(name, progress)
            await self._catalog.refresh()
        except CoveError as failure:
            self._log.warning("template_build_failed", template=name, code=failure.code, error=str(failure))
            self._catalog.unbuilt[name] = failure
            return False
        self._catalog.unbuilt.pop(name, None)
        self._log.info("template_built", template=name)
        return True


def being_built(name: str, progress: BuildProgress) -> CoveError:
    """For a create that comes too early. `details` tell programs that waiting helps, and how far it is."""
    return error(
        "TEMPLATE_NOT_BUILT",
        f"Template {name!r} is being built, once for this machine: {progress.fraction:.0%} done ({progress.step}).",
        remedy="Try again in a minute.",
        template=name,
        fraction=progress.fraction,
        step=progress.step,
    )
