"""Builds of tenants' templates: accepted, run beside everything else, remembered."""

import asyncio
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog

from cove.core.background import Background
from cove.core.base_images import find_base
from cove.core.build_log import BuildLog
from cove.core.build_run import BuildGuest, BuildRun, Progress, owned_directories, ready_probe
from cove.core.catalog import CatalogEntry, TemplateCatalog
from cove.core.clock import Clock
from cove.core.creation import Creator
from cove.core.planning import CreationPolicy, check_maxima, network_in_force
from cove.core.ports import Host
from cove.core.principal import NO_REQUEST, SYSTEM_ACTOR, Principal
from cove.core.storage import Store
from cove.models.errors import CoveError, error
from cove.models.hosts import SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.isolation import Isolation, strongest
from cove.models.limits import Limits
from cove.models.stored import StoredBuild, StoredEvent, StoredTemplate
from cove.models.template_builds import BuildStatus, BuildTemplate, StepType
from cove.models.templates import TemplateDerivation, derived_name

BUILD_SECONDS = 1800.0
MAX_TEMPLATES = 200
_AT_ONCE = 2
_WAITING = 20
_WAITING_OF_ONE = 5
_DECIMAL_ID = re.compile("[1-9][0-9]{0,8}")


class Uploads(Protocol):
    """Archives that tenants have uploaded."""

    def find(self, namespace: str, files_hash: str) -> Path | None:
        """The file, if it is there."""
        ...


@dataclass(frozen=True, slots=True)
class _Build:
    """One build that was accepted: what was asked for, what it stands on, and its log so far."""

    template: StoredTemplate
    request: BuildTemplate
    base: CatalogEntry
    limits: Limits
    uploads: Mapping[str, Path]
    log: BuildLog


class TemplateBuilds:
    """Accepts builds, runs two at a time, and answers for them. A build whose server ends has failed."""

    def __init__(
        self,
        *,
        host: Host,
        store: Store,
        catalog: TemplateCatalog,
        creator: Creator,
        guest: BuildGuest,
        uploads: Uploads,
        background: Background,
        policy: CreationPolicy,
        directory: Path,
        clock: Clock,
    ) -> None:
        """`directory` takes what builds leave, until the host has it."""
        self._host = host
        self._store = store
        self._catalog = catalog
        self._creator = creator
        self._guest = guest
        self._uploads = uploads
        self._background = background
        self._policy = policy
        self._directory = directory
        self._clock = clock
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._running: dict[int, tuple[_Build, asyncio.Task[None]]] = {}
        self._log = structlog.get_logger("cove.builds")

    async def recover(self) -> None:
        """Close what an earlier server has left half done."""
        shutil.rmtree(self._directory, ignore_errors=True)
        for row in await self._store.read(lambda work: work.templates.all()):
            if row.status is BuildStatus.BUILDING and row.build is not None:
                log = BuildLog()
                log.say("ERROR: the server ended during the build")
                await self._end(row, BuildStatus.FAILED, log, "The server ended during the build.")

    async def start(self, principal: Principal, request: BuildTemplate) -> StoredTemplate:
        """Accept a build; it goes on when this returns.

        Raises:
            CoveError: CONFLICT (the name is taken, or being built), FORBIDDEN (a network that is too wide),
                INVALID_REQUEST, MISSING_PARAMETER (an archive that was not uploaded), RESOURCE_LIMIT_EXCEEDED,
                TEMPLATE_NOT_BUILT.
        """
        if request.ready is not None:
            ready_probe(request.ready)
        asked = _asked_limits(request)
        check_maxima(asked, self._policy)
        limits = self._policy.limits.model_copy(update=asked)
        if request.network is not None:
            network_in_force(request.network, self._policy)
        base = await find_base(self._catalog, request.from_image, principal.namespace)
        uploads = self._uploaded(principal, request)
        self._admit(principal.namespace)
        build = StoredBuild(
            base=base.template.name,
            limits=asked,
            started_at=self._clock(),
        )
        template = await self._claimed(principal, request, build)
        job = _Build(template, request, base, limits, uploads, BuildLog())
        task = self._background.spawn(self._run(job), name=f"build template {template.id}")
        self._running[template.id] = (job, task)
        return template

    async def get(self, principal: Principal, template_id: str) -> StoredTemplate:
        """The template of a build.

        Raises:
            CoveError: RESOURCE_NOT_FOUND.
        """
        row = None
        if _DECIMAL_ID.fullmatch(template_id):
            row = await self._store.read(lambda work: work.templates.get(int(template_id)))
        if row is not None and row.build is not None and row.namespace == principal.namespace:
            return row
        raise error(
            "RESOURCE_NOT_FOUND",
            f"Build {template_id[:20]!r} was not found.",
            remedy="POST /v1/templates/build starts one, and answers with its id.",
        )

    async def log(self, principal: Principal, template_id: str) -> tuple[StoredTemplate, str]:
        """The template of a build, and what the build has said so far."""
        row = await self.get(principal, template_id)
        running = self._running.get(row.id)
        if running is not None:
            return row, running[0].log.text
        return row, await self._store.read(lambda work: work.templates.build_log(row.id))

    async def remove(self, principal: Principal, reference: str) -> StoredTemplate:
        """Remove a template of the tenant's own; a build of it is ended. Sandboxes that stand on it go on.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND; FORBIDDEN for a template that is everybody's.
        """
        entry = await self._catalog.find(reference, principal.namespace)
        template = entry.template
        if not template.namespace:
            raise error(
                "FORBIDDEN",
                f"Template {template.name!r} belongs to the server and cannot be deleted.",
                remedy="Delete templates that were built with a key of this namespace.",
            )
        running = self._running.get(template.id)
        if running is not None:
            running[1].cancel()
            await asyncio.wait([running[1]], timeout=self._policy.create_seconds)
            self._running.pop(template.id, None)  # a task that had not begun ends without a word
        await self._host.remove_template(template.host_name)
        await self._store.write(lambda work: work.templates.remove(template.id))
        self._catalog.forget(template)
        await self._note(template, "template.deleted", principal)
        return template

    def _uploaded(self, principal: Principal, request: BuildTemplate) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for step in request.steps:
            if step.type is StepType.COPY and step.files_hash:
                path = self._uploads.find(principal.namespace, step.files_hash)
                if path is None:
                    raise error(
                        "MISSING_PARAMETER",
                        f"The archive {step.files_hash[:12]}... of a COPY step was not uploaded.",
                        remedy="POST /v1/templates/files/upload-link, then PUT the archive to the URL of its answer.",
                    )
                found[step.files_hash] = path
        return found

    def _admit(self, namespace: str) -> None:
        own = sum(job.template.namespace == namespace for job, _ in self._running.values())
        if own >= _WAITING_OF_ONE or len(self._running) >= _WAITING:
            raise error(
                "RATE_LIMIT_EXCEEDED",
                "Too many builds are under way.",
                remedy="Try again when one has ended.",
                retry_after_seconds=30,
            )

    async def _claimed(self, principal: Principal, request: BuildTemplate, build: StoredBuild) -> StoredTemplate:
        """The row of the template, new or taken over from its last build."""
        own = [entry.template for entry in self._catalog.all(principal.namespace) if entry.template.namespace]
        known = next((one for one in own if one.name == request.name), None)
        if known is None:
            if len(own) >= MAX_TEMPLATES:
                raise error(
                    "RESOURCE_LIMIT_EXCEEDED",
                    f"The limit of {MAX_TEMPLATES} templates is reached.",
                    remedy="Delete one that is not used: DELETE /v1/templates/{id}.",
                )
            row = await self._store.write(
                lambda work: work.templates.add(namespace=principal.namespace, name=request.name, build=build)
            )
        elif known.id in self._running or (known.status is not BuildStatus.FAILED and not request.update):
            raise error(
                "CONFLICT",
                f"A template named {request.name!r} exists already.",
                remedy="Choose another name, or build with update: true.",
            )
        else:
            changed = await self._store.write(
                lambda work: work.templates.set_build(known.id, build, BuildStatus.BUILDING, log="")
            )
            if changed is None:
                raise error("CONFLICT", f"Template {request.name!r} was deleted meanwhile.", remedy="Build it again.")
            row = changed
        self._catalog.show(row)
        await self._note(row, "template.build_started", principal, base=build.base, limits=build.limits)
        return row

    async def _run(self, job: _Build) -> None:
        template, status, failure = job.template, BuildStatus.FAILED, "The build was ended."
        try:
            async with self._free, asyncio.timeout(BUILD_SECONDS):
                await self._made(job)
            status, failure = BuildStatus.ACTIVE, None
            job.log.say("Done")
        except TimeoutError:
            failure = f"The build took longer than {BUILD_SECONDS:.0f} s."
        except CoveError as problem:
            failure = str(problem)
        except Exception:
            failure = "The build failed for a reason of the server's own; its log has it."
            self._log.exception("build_failed", template_id=template.id)
        finally:
            shutil.rmtree(self._directory / str(template.id), ignore_errors=True)
            if failure:
                job.log.say(f"ERROR: {failure}")
            # Before anybody can see that it has ended: who does may build it anew.
            self._running.pop(template.id, None)
            await asyncio.shield(self._end(template, status, job.log, failure))

    async def _made(self, job: _Build) -> None:
        """Run the steps in a sandbox and have the host make the template of what they left."""
        template, request = job.template, job.request
        directory = self._directory / str(template.id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        job.log.say(f"FROM {request.from_image}: the template {job.base.template.name} of this server")
        spec = SandboxSpec(
            sandbox_id=new_sandbox_id(),
            template=job.base.template.host_name,
            isolation=strongest(self._policy.isolation, _isolation(job)),
            limits=job.limits,
            required_limits=self._policy.must_hold,
            deadline=self._clock() + BUILD_SECONDS,
            owned_directories=owned_directories(request),
        )
        run = BuildRun(request, job.uploads, self._guest, job.log, lambda progress: self._progressed(job, progress))
        async with self._creator.lent(spec) as record:
            await run.steps(record)
            await self._progressed(job, Progress("Saving what the steps left", 88))
            captured = await run.capture(record, directory)
        await self._progressed(job, Progress("Making the template", 94))
        await self._host.derive_template(
            TemplateDerivation(
                name=derived_name(template.id),
                base=job.base.template.host_name,
                display_name=template.display_name,
                description=template.description,
                environment=run.environment,
                directories=captured,
                owned_directories=owned_directories(request),
                start_command=request.start_command or "",
                limits=job.limits,
                isolation=_isolation(job),
                network=job.base.network if request.network is None else request.network,
                run_as_root=request.run_as_root,
            )
        )
        await self._catalog.refresh()

    async def _progressed(self, job: _Build, progress: Progress) -> None:
        row = job.template
        assert row.build
        build = replace(row.build, progress=progress.percent, step=progress.step)
        text = job.log.text
        await self._store.write(lambda work: work.templates.set_build(row.id, build, BuildStatus.BUILDING, log=text))

    async def _end(self, row: StoredTemplate, status: BuildStatus, log: BuildLog, failure: str | None) -> None:
        assert row.build
        done = status is BuildStatus.ACTIVE
        build = replace(
            row.build,
            progress=100 if done else row.build.progress,
            step=None,
            completed_at=self._clock(),
            error=failure,
        )
        text = log.text
        with suppress(CoveError):
            changed = await self._store.write(lambda work: work.templates.set_build(row.id, build, status, log=text))
            if changed is not None:
                self._catalog.show(changed)
                await self._note(changed, f"template.build_{'completed' if done else 'failed'}", None)

    async def _note(self, row: StoredTemplate, action: str, principal: Principal | None, **details: object) -> None:
        origin = NO_REQUEST if principal is None else principal.origin
        event = StoredEvent(
            at=self._clock(),
            namespace=row.namespace,
            actor=SYSTEM_ACTOR if principal is None else principal.actor,
            action=action,
            subject=str(row.id),
            details={"name": row.name, **details},
            request_id=origin.request_id,
            address=origin.address,
        )
        await self._store.write(lambda work: work.events.add(event))


def _asked_limits(request: BuildTemplate) -> dict[str, int]:
    asked = {"vcpu": request.cpu, "memory_mb": request.memory, "disk_mb": request.disk_gb * 1024}
    return asked | (request.resources.model_dump(exclude_none=True) if request.resources else {})


def _isolation(job: _Build) -> Isolation | None:
    """What the new template's sandboxes must have: no less than those of its base."""
    return strongest(job.request.isolation, job.base.isolation)
