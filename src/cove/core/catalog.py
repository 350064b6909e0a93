"""Which templates there are: what hosts have built, under the ids that the store gave them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from cove.core.clock import Clock
from cove.core.ports import Host
from cove.core.storage import Store, UnitOfWork
from cove.models.errors import CoveError, error
from cove.models.isolation import Isolation
from cove.models.network import NetworkPolicy
from cove.models.stored import StoredTemplate
from cove.models.templates import TemplateManifest

_HOST_SECONDS = 5.0
_REFRESH_SECONDS = 1.0
"""A name that is not known makes the catalog ask the host again, but no more often than this."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One template.

    Attributes:
        built: whether the host has it at present.
        packages: name -> version of what is installed in it, as far as the host has said.
        resources: limits of its sandboxes where they ask for none, as far as its builder named them.
        isolation: what its sandboxes must have at least; None leaves it to the server.
        network: what they may reach where their creates say nothing of it; None leaves it to the server.
    """

    template: StoredTemplate
    built: bool
    packages: Mapping[str, str]
    resources: Mapping[str, int] = field(default_factory=dict[str, int])
    isolation: Isolation | None = None
    network: NetworkPolicy | None = None


class TemplateCatalog:
    """Answers from memory; `refresh` brings it up to date.

    Attributes:
        unbuilt: what to say of templates that are being built for the first time.
    """

    def __init__(self, host: Host, store: Store, *, clock: Clock) -> None:
        self._host = host
        self._store = store
        self._clock = clock
        self._by_name: dict[tuple[str, str], CatalogEntry] = {}
        self._by_id: dict[str, CatalogEntry] = {}
        self._manifests: Mapping[str, TemplateManifest] = {}
        self._refreshing = asyncio.Lock()
        self._refreshed = float("-inf")
        self.unbuilt: dict[str, CoveError] = {}

    async def load(self) -> None:
        """Start with what the store remembers, so that templates keep their ids while no host answers."""
        self._fill(await self._store.read(lambda work: work.templates.all()), built=frozenset())

    async def refresh(self) -> None:
        """Ask the host what is built, and store what is new.

        Raises:
            CoveError: HOST_UNAVAILABLE, STORE_UNAVAILABLE; the catalog stays as it was.
        """
        async with self._refreshing:
            self._refreshed = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(_HOST_SECONDS):
                    manifests = await self._host.templates()
            except TimeoutError:
                raise error("HOST_UNAVAILABLE", "The host did not say which templates it has.") from None
            await self._take(manifests)

    async def find(self, reference: str, namespace: str = "") -> CatalogEntry:
        """The template with this name or decimal id that `namespace` sees: its own, or everybody's.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND, with the names that exist in `details`; what `unbuilt` says.
        """
        entry = self._look_up(reference, namespace)
        if entry is None or not entry.built:
            await self._refresh_if_old()
            entry = self._look_up(reference, namespace)
        if (entry is None or not entry.built) and reference in self.unbuilt:
            told = self.unbuilt[reference]
            raise error(told.code, told.message, remedy=told.remedy, **told.details)
        if entry is None:
            raise error(
                "TEMPLATE_NOT_FOUND",
                f"Template {reference[:200]!r} was not found.",
                remedy="`cove templates list` shows what exists; `cove templates build NAME` builds one.",
                template=reference[:200],
                available_templates=sorted(entry.template.name for entry in self.all(namespace)),
            )
        return entry

    def all(self, namespace: str = "") -> tuple[CatalogEntry, ...]:
        """Every template that `namespace` sees, by id."""
        return tuple(entry for entry in self._by_id.values() if entry.template.namespace in ("", namespace))

    def digests(self) -> Mapping[str, str]:
        """Name on the host -> content digest of every template that is built."""
        return {entry.template.host_name: entry.template.digest for entry in self._by_id.values() if entry.built}

    def show(self, template: StoredTemplate) -> None:
        """A tenant's template is new, or its build went on."""
        known = self._by_id.get(str(template.id))
        entry = self._entry(template, built=known is not None and known.built)
        self._by_id[str(template.id)] = self._by_name[template.namespace, template.name] = entry

    def forget(self, template: StoredTemplate) -> None:
        """A tenant's template was removed."""
        self._by_id.pop(str(template.id), None)
        self._by_name.pop((template.namespace, template.name), None)

    def _look_up(self, reference: str, namespace: str) -> CatalogEntry | None:
        own = self._by_name.get((namespace, reference)) or self._by_name.get(("", reference))
        if own is not None:
            return own
        entry = self._by_id.get(reference)
        return entry if entry is not None and entry.template.namespace in ("", namespace) else None

    async def _refresh_if_old(self) -> None:
        if asyncio.get_running_loop().time() - self._refreshed >= _REFRESH_SECONDS:
            await self.refresh()

    async def _take(self, manifests: tuple[TemplateManifest, ...]) -> None:
        known = {entry.template.host_name: entry.template.digest for entry in self._by_id.values()}
        fresh = [manifest for manifest in manifests if known.get(manifest.name) != manifest.digest]
        templates = tuple(entry.template for entry in self._by_id.values())
        if fresh:
            now = self._clock()
            templates = await self._store.write(lambda work: _put_all(work, fresh, now))
        self._manifests = {manifest.name: manifest for manifest in manifests}
        self._fill(templates, built=frozenset(manifest.name for manifest in manifests))

    def _fill(self, templates: tuple[StoredTemplate, ...], *, built: frozenset[str]) -> None:
        entries = [self._entry(template, built=template.host_name in built) for template in templates]
        self._by_name = {(entry.template.namespace, entry.template.name): entry for entry in entries}
        self._by_id = {str(entry.template.id): entry for entry in entries}

    def _entry(self, template: StoredTemplate, *, built: bool) -> CatalogEntry:
        manifest = self._manifests.get(template.host_name)
        named = template.build.limits if template.build else manifest.resources if manifest else {}
        if manifest is None:
            return CatalogEntry(template, built, {}, named)
        return CatalogEntry(template, built, manifest.packages, named, manifest.isolation, manifest.network)


def _put_all(work: UnitOfWork, manifests: list[TemplateManifest], now: float) -> tuple[StoredTemplate, ...]:
    for manifest in manifests:
        work.templates.put(manifest, at=now)
    return work.templates.all()
