"""A host in memory, over the fake driver, that can be told to misbehave."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cove.drivers.fake import FakeDriver
from cove.hostd.changes import ChangeLog
from cove.models.errors import error
from cove.models.hosts import HostCapacity, HostChanges, HostState, HostUsage, SandboxRecord, SandboxSpec
from cove.models.isolation import DriverReport
from cove.models.network import EgressPolicy, EgressTotals, NetworkReport, RefusalCause
from cove.models.secrets import EgressSecret
from cove.models.templates import BuildProgress, TemplateDerivation, TemplateManifest


def manifest(name: str, digest: str = "d1") -> TemplateManifest:
    return TemplateManifest(
        name=name,
        display_name=name.title(),
        description=f"The {name} template",
        digest=f"{name}-{digest}",
        layers=("/nowhere",),
        python="/usr/bin/python3",
        languages=("python", "bash"),
        built_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


class FakeHost:
    """Implements `Host`.

    Attributes:
        down: every call fails with HOST_UNAVAILABLE.
        refuse_destroy: destroys fail with HOST_UNAVAILABLE.
        created_then_lost: the next creates make a sandbox and fail with HOST_UNAVAILABLE all the same.
        specs: what it was asked to create.
        secrets: of each sandbox, by name.
        hang: calls that name a sandbox wait until it is set.
    """

    def __init__(self, directory: Path, *, sockets: bool = True) -> None:
        self.driver = FakeDriver(directory, sockets=sockets)
        self.manifests = {name: manifest(name) for name in ("code-interpreter", "base")}
        self.down = False
        self.refuse_destroy = False
        self.created_then_lost = 0
        self.hang = asyncio.Event()
        self.hang.set()
        self.calls: list[str] = []
        self.specs: list[SandboxSpec] = []
        self.secrets: dict[str, dict[str, EgressSecret]] = {}
        self.kept: dict[str, dict[str, str]] = {}
        self.log = ChangeLog()

    @property
    def ids(self) -> set[str]:
        return set(self.driver.sandboxes)

    def members(self) -> set[str]:
        return {name for name, sandbox in self.driver.sandboxes.items() if sandbox.record.pooled}

    def crash(self, sandbox_id: str) -> None:
        """Lose a sandbox, as when its first process dies."""
        sandbox = self.driver.sandboxes.pop(sandbox_id)
        self.log.note(sandbox_id)
        if sandbox.server is not None:
            sandbox.server.close()
            Path(sandbox.record.socket_path).unlink(missing_ok=True)

    async def capacity(self) -> HostCapacity:
        await self._enter("capacity")
        return HostCapacity(
            host_id="fake", cpus=2, memory_bytes=2**30, sandboxes=len(self.driver.sandboxes), max_sandboxes=1000
        )

    async def check(self) -> tuple[DriverReport, ...]:
        await self._enter("check")
        return (await self.driver.check(),)

    async def create(self, spec: SandboxSpec) -> SandboxRecord:
        await self._enter("create")
        self.specs.append(spec)
        found = self.manifests.get(spec.template)
        if found is None:
            raise error("TEMPLATE_NOT_FOUND", f"No template {spec.template}.")
        record = await self.driver.create(spec, found)
        self.secrets[spec.sandbox_id] = {secret.name: secret for secret in spec.secrets}
        if self.created_then_lost:
            self.created_then_lost -= 1
            raise error("HOST_UNAVAILABLE", "The connection to the host broke.")
        return record

    async def destroy(self, sandbox_id: str) -> None:
        await self._enter("destroy")
        if self.refuse_destroy:
            raise error("HOST_UNAVAILABLE", "The host does not destroy today.")
        sandbox = self.driver.sandboxes.get(sandbox_id)
        if sandbox is not None:
            await self.driver.destroy(sandbox.record)

    async def claim(self, sandbox_id: str, deadline: float | None) -> SandboxRecord:
        await self._enter("claim")
        return self.driver.update(sandbox_id, pooled=False, deadline=deadline)

    async def set_deadline(self, sandbox_id: str, deadline: float | None) -> None:
        await self._enter("set_deadline")
        self.driver.update(sandbox_id, deadline=deadline)

    async def set_network(self, sandbox_id: str, policy: EgressPolicy | None) -> None:
        await self._enter("set_network")
        self.driver.update(sandbox_id, network=policy)

    async def set_secrets(self, sandbox_id: str, changed: tuple[EgressSecret, ...], removed: tuple[str, ...]) -> None:
        await self._enter("set_secrets")
        self.driver.update(sandbox_id)
        kept = {name: secret for name, secret in self.secrets.get(sandbox_id, {}).items() if name not in removed}
        self.secrets[sandbox_id] = {**kept, **{secret.name: secret for secret in changed}}

    async def network(self, sandbox_id: str, after: int) -> NetworkReport:
        await self._enter("network")
        return NetworkReport(policy=self.driver.update(sandbox_id).network)

    async def network_totals(self) -> EgressTotals:
        await self._enter("network_totals")
        return EgressTotals(sent_bytes=7, refused=1, refusals={RefusalCause.POLICY: 1})

    async def pause(self, sandbox_id: str) -> None:
        await self._enter("pause")
        await self.driver.pause(self.driver.update(sandbox_id))

    async def resume(self, sandbox_id: str) -> None:
        await self._enter("resume")
        await self.driver.resume(self.driver.update(sandbox_id))

    async def stop(self, sandbox_id: str, env_vars: Mapping[str, str]) -> None:
        await self._enter("stop")
        self.kept[sandbox_id] = dict(env_vars)
        await self.driver.stop(self.driver.update(sandbox_id))

    async def start(self, sandbox_id: str) -> SandboxRecord:
        await self._enter("start")
        record = self.driver.update(sandbox_id)
        if record.state is not HostState.STOPPED:
            return record
        return await self.driver.start(record, self.manifests[record.template], self.kept.pop(sandbox_id))

    async def changes(self, cursor: str, seconds: float) -> HostChanges:
        await self._enter("changes")
        return await self.log.since(cursor, seconds)

    async def list(self) -> tuple[SandboxRecord, ...]:
        await self._enter("list")
        return tuple(sandbox.record for sandbox in self.driver.sandboxes.values())

    async def usage(self, sandbox_id: str) -> HostUsage:
        await self._enter("usage")
        return await self.driver.usage(self.driver.update(sandbox_id))

    async def templates(self) -> tuple[TemplateManifest, ...]:
        await self._enter("templates")
        return tuple(self.manifests.values())

    async def warm(self, template: str) -> None:
        await self._enter("warm")

    async def derive_template(self, derivation: TemplateDerivation) -> TemplateManifest:
        await self._enter("derive_template")
        made = manifest(derivation.name).model_copy(
            update={
                "base": derivation.base,
                "display_name": derivation.display_name,
                "own_layers": ("/nowhere",),
                "isolation": derivation.isolation,
                "network": derivation.network,
                "limits": derivation.limits,
            }
        )
        self.manifests[derivation.name] = made
        return made

    async def remove_template(self, name: str) -> None:
        await self._enter("remove_template")
        self.manifests.pop(name, None)

    async def build_template(self, name: str) -> AsyncIterator[BuildProgress]:
        await self._enter("build_template")
        yield BuildProgress(step="done", fraction=1.0)

    async def _enter(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            raise error("HOST_UNAVAILABLE", "The host does not answer.")
        await self.hang.wait()
