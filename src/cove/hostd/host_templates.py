"""Templates as this host's sandboxes stand on them: as built, in the version that each was made of, and with the
certificates that they trust."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from cove.host.templates.store import TemplateStore
from cove.host.templates.trust import TrustLayers
from cove.hostd.template_versions import TemplateVersions, is_version
from cove.models.errors import CoveError, error
from cove.models.hosts import SandboxRecord
from cove.models.templates import BuildProgress, TemplateDerivation, TemplateManifest


class HostTemplates:
    """Whatever blocks happens in threads."""

    def __init__(
        self,
        store: TemplateStore,
        *,
        versions: TemplateVersions,
        trust: TrustLayers,
        builds: Path,
        preload: bool = True,
    ) -> None:
        """
        Args:
            versions: of the templates that sandboxes stand on.
            trust: what goes on top of each.
            builds: the directory in which the control plane leaves what builds have made.
            preload: let warm processes import the template's modules ahead.
        """
        self._store = store
        self._versions = versions
        self._trust = trust
        self._builds = builds
        self._preload = preload
        self._loaded: dict[str, tuple[int | None, TemplateManifest]] = {}

    async def list(self) -> tuple[TemplateManifest, ...]:
        """Those that are built, as built."""
        return await asyncio.to_thread(self._store.list)

    async def get(self, name: str) -> TemplateManifest:
        """For a new sandbox. Manifests are read once, and again after a rebuild, whoever built.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND, TEMPLATE_NOT_BUILT; what `TrustLayers.on_top_of` raises.
        """
        version = self._store.version(name)
        known, manifest = self._loaded.get(name, (None, None))
        if manifest is None or version is None or known != version:
            manifest = await asyncio.to_thread(lambda: self._trust.on_top_of(self._store.get(name)))
            if not self._preload:
                manifest = manifest.model_copy(update={"preload": ()})
            self._loaded[name] = (version, manifest)
        return manifest

    def keep(self, manifest: TemplateManifest) -> None:
        """Remember the version, for a later start of a sandbox that was made of it.

        Raises:
            OSError: it cannot be written.
        """
        self._versions.keep(self._trust.without(manifest))

    def forget_except(self, digests: Collection[str]) -> None:
        """Drop the versions that no sandbox stands on."""
        self._versions.forget_except(digests)

    async def version_of(self, record: SandboxRecord) -> TemplateManifest:
        """What a sandbox was made of, with what is trusted today; one that an older daemon made may be known by its
        template only.

        Raises:
            CoveError: TEMPLATE_NOT_BUILT: it is no more.
        """
        found = self._versions.find(record.template_digest)
        if found is None:
            with contextlib.suppress(CoveError):
                found = await self.get(record.template)
        if found is None or not is_version(found, record.template_digest):
            raise error(
                "TEMPLATE_NOT_BUILT",
                f"The version of template {record.template!r} that sandbox {record.sandbox_id} stands on is no more.",
                remedy="Create a new sandbox; delete this one to free its disk.",
                template=record.template,
                digest=record.template_digest,
            )
        return await asyncio.to_thread(self._trust.on_top_of, found)

    async def build(self, name: str) -> AsyncIterator[BuildProgress]:
        """Build, hand on its progress."""
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[BuildProgress | None] = asyncio.Queue()

        def report(progress: BuildProgress) -> None:
            loop.call_soon_threadsafe(steps.put_nowait, progress)

        build = asyncio.create_task(asyncio.to_thread(functools.partial(self._store.build, name, on_progress=report)))
        build.add_done_callback(lambda _: steps.put_nowait(None))
        while (step := await steps.get()) is not None:
            yield step
        await build

    async def derive(self, derivation: TemplateDerivation) -> TemplateManifest:
        """See `TemplateStore.derive`."""
        return await asyncio.to_thread(self._store.derive, derivation, builds=self._builds)

    async def remove(self, name: str, *, in_use: bool) -> None:
        """See `TemplateStore.remove`."""
        await asyncio.to_thread(functools.partial(self._store.remove, name, in_use=in_use))
