"""Sandboxes by (namespace, name): started, stopped, found."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

from cove.compat.microsandbox.config import SandboxConfig
from cove.compat.microsandbox.directories import WORKDIR_VARIABLE, enter
from cove.compat.microsandbox.images import Choice, template_for, unknown_image
from cove.compat.microsandbox.names import made_up_by_client, named
from cove.models.errors import CoveError, error
from cove.models.sandboxes import CreatedSandbox, SandboxInfo, SandboxStatus
from cove.sdk import AsyncControlPlane, AsyncSandbox

_RACES = frozenset({"CONFLICT", "INVALID_STATE", "SANDBOX_NOT_FOUND", "SANDBOX_EXPIRED"})
_STARTING_SECONDS = 60.0
_POLL_SECONDS = 0.05
_UNNAMED_SECONDS = 60
"""How long the disk of a stopped sandbox is kept whose name the client made up."""

_LIFETIME_SECONDS = 3600
"""Of such a sandbox, if it is started again all the same."""

_OWN_NAMESPACE = "Leave `namespace` out to use the key's own, or name that."
_SHOWN_ENTRIES = 20
_NOT_ENFORCED = "Its limits of memory and processors are not in force: this machine cannot enforce them."
_KEPT = "It existed already, and its configuration stays as it was."


class NamedSandboxes:
    """The sandboxes of one namespace, as one caller may see them."""

    def __init__(self, control: AsyncControlPlane, namespace: str | None = None) -> None:
        """`control` stays the caller's to close; None means the namespace of its key.

        Raises:
            InvalidRequest: no namespace has such a name.
        """
        if namespace is not None:
            control = control.in_namespace(named("namespace", namespace))
        self.control = control
        self._namespace = namespace

    async def start(self, name: str, config: SandboxConfig | None = None) -> str:
        """Have it run: as it is when it runs, on its disk when it was stopped, or a new one. Says what was done.

        Raises:
            CoveError: it cannot be started as the configuration says.
        """
        named("sandbox", name)
        config = config or SandboxConfig()
        chosen = template_for(config.image)
        deadline = time.monotonic() + _STARTING_SECONDS
        while True:
            info = await self._find(name)
            try:
                if info is None:
                    info, lost = await self._create(name, config, chosen)
                    notes = [chosen.note, lost, *_about_rest(config)]
                else:
                    info = await self._resumed(info)
                    notes = [_KEPT] if config.image or config.volumes else []
            except CoveError as failure:
                # Somebody else started, stopped or ended it meanwhile.
                if failure.code not in _RACES or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
                continue
            return _started(name, [*notes, *await self._about_ports(config, info)])

    async def stop(self, name: str) -> str:
        """End what runs in it and keep its disk. Says what was done.

        Raises:
            NotFound: there is none.
        """
        info = await self.get(name)
        sentence = f"Sandbox {name} stopped successfully."
        try:
            await self.control.stop(info.id)
        except CoveError as failure:
            if failure.code != "UNSUPPORTED":
                raise
            await self.control.kill(info.id)
            return f"{sentence} Its files are gone: disks cannot be kept here."
        if made_up_by_client(name):
            await self.control.set_timeout(info.id, _UNNAMED_SECONDS)
        return sentence

    async def get(self, name: str) -> SandboxInfo:
        """What is known of it.

        Raises:
            NotFound: there is none.
        """
        named("sandbox", name)
        info = await self._find(name)
        if info is None:
            where = f" in the namespace {self._namespace}" if self._namespace else ""
            raise error(
                "SANDBOX_NOT_FOUND",
                f"There is no sandbox {name!r}{where}.",
                remedy="sandbox_start (sandbox.start) starts one; it may have reached the end of its time.",
                names_tools=True,
            )
        return info

    async def running(self, name: str) -> AsyncSandbox:
        """The sandbox to run something in; a paused one is resumed.

        Raises:
            NotFound: there is none.
            Conflict: it does not run.
        """
        info = await self.get(name)
        if info.status is SandboxStatus.PAUSED:
            await self.control.resume(info.id)
        elif info.status is not SandboxStatus.RUNNING:
            raise error(
                "INVALID_STATE",
                f"Sandbox {name} is {info.status}, not running.",
                remedy="sandbox_start (sandbox.start) starts it again.",
            )
        return AsyncSandbox(info, self.control)

    async def all(self) -> AsyncIterator[SandboxInfo]:
        """Those that have a name, newest first."""
        async for info in self.control.sandboxes():
            if info.name:
                yield info

    async def _find(self, name: str) -> SandboxInfo | None:
        try:
            page = await self.control.page(name=name, limit=1)
        except CoveError as failure:
            if failure.code == "FORBIDDEN" and self._namespace and "scope" not in failure.details:
                raise error("FORBIDDEN", failure.message, remedy=_OWN_NAMESPACE) from None
            raise
        return page.data[0] if page.data else None

    async def _create(self, name: str, config: SandboxConfig, chosen: Choice) -> tuple[SandboxInfo, str]:
        """The new sandbox, and which limits do not hold, in words."""
        variables = config.variables
        if config.workdir:
            variables[WORKDIR_VARIABLE] = config.workdir
        lost, create = "", partial(self.control.create, chosen.template, name=name, env_vars=variables or None)
        try:
            try:
                created = await create(resources=config.resources)
            except CoveError as failure:
                if failure.code != "LIMIT_NOT_ENFORCEABLE" or not config.limits_are_the_clients_own:
                    raise
                created, lost = await create(), _NOT_ENFORCED
        except CoveError as failure:
            if failure.code != "TEMPLATE_NOT_FOUND" or config.image is None:
                raise
            raise unknown_image(config.image, [one.name for one in await self.control.templates()]) from None
        try:
            for host, guest in config.directories:
                await self.control.copy_volume(created.id, host, guest)
            if config.workdir:
                await self._begin(created, config.workdir)
        except BaseException:
            await asyncio.shield(self.control.kill(created.id))
            raise
        return created, lost

    async def _begin(self, created: CreatedSandbox, directory: str) -> None:
        sandbox = AsyncSandbox(created, self.control)
        await sandbox.files.mkdir(directory)
        await enter(sandbox, directory)

    async def _resumed(self, info: SandboxInfo) -> SandboxInfo:
        match info.status:
            case SandboxStatus.RUNNING:
                return info
            case SandboxStatus.PAUSED:
                await self.control.resume(info.id)
            case SandboxStatus.STOPPED:
                await self.control.start(info.id)
                await self._prolong(info)
                await self._enter_again(info)
            case SandboxStatus.CREATING:
                raise error("INVALID_STATE", f"Sandbox {info.name} is being created.")
            case _:
                # Nothing of it can be used again; its name can.
                await self.control.kill(info.id)
                raise error("INVALID_STATE", f"Sandbox {info.name} had failed.")
        return info

    async def _prolong(self, info: SandboxInfo) -> None:
        """What is started again has all of its time again."""
        if info.timeout_seconds:
            seconds = _LIFETIME_SECONDS if made_up_by_client(info.name or "") else info.timeout_seconds
            await self.control.set_timeout(info.id, seconds)

    async def _enter_again(self, info: SandboxInfo) -> None:
        sandbox = AsyncSandbox(info, self.control)
        directory = await sandbox.env.get(WORKDIR_VARIABLE)
        if directory:
            await enter(sandbox, directory)

    async def _about_ports(self, config: SandboxConfig, info: SandboxInfo) -> list[str]:
        sandbox = AsyncSandbox(info, self.control)
        return [
            f"Port {port} is reached at {await sandbox.get_open_preview_url(port)}; no port of the host is opened."
            for port in config.guest_ports[:_SHOWN_ENTRIES]
        ]


def _started(name: str, notes: list[str]) -> str:
    # Clients take "timed out waiting" in this sentence for a warning: it must not come to be there.
    return " ".join([f"Sandbox {name} started successfully.", *filter(None, notes)])


def _about_rest(config: SandboxConfig) -> list[str]:
    copied = [
        f"{host} was copied to {guest}; changes do not come back."
        for host, guest in config.directories[:_SHOWN_ENTRIES]
    ]
    unused = config.without_effect
    return [*copied, f"Without effect here: {', '.join(unused)}."] if unused else copied
