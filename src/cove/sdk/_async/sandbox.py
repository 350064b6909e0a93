"""A running sandbox as an object."""

import builtins
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx2

from cove.models.errors import CoveError, error
from cove.models.isolation import Isolation
from cove.models.network import EgressPolicy, NetworkPolicy
from cove.models.previews import PreviewAccess
from cove.models.sandboxes import ResourcesRequest, SandboxInfo, SandboxStatus, StatusAnswer, TimeoutAnswer
from cove.models.secrets import SandboxSecret
from cove.models.templates import TemplateInfo
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._async.cache import AsyncCache
from cove.sdk._async.code import AsyncCode
from cove.sdk._async.commands import AsyncCommands
from cove.sdk._async.condition import AsyncCondition
from cove.sdk._async.control import AsyncControlPlane
from cove.sdk._async.environment import AsyncEnvironment
from cove.sdk._async.files import AsyncFiles
from cove.sdk._async.network import AsyncNetwork
from cove.sdk._async.previews import AsyncPreviews
from cove.sdk._async.primitives import Creation, begin
from cove.sdk._async.secrets import AsyncSandboxSecrets

if TYPE_CHECKING:
    from cove.sdk._async.terminal import AsyncTerminal

_GONE = ("SANDBOX_NOT_FOUND", "SANDBOX_EXPIRED", "SANDBOX_DIED")


class AsyncSandbox(AsyncCode, AsyncPreviews, AsyncCondition):
    """An isolated place where untrusted code runs.

    Made by `create` or `connect`. As a context manager it is killed at the end of the block; otherwise it lives until
    its deadline, or until `kill`.

    Every method raises `CoveError` when the platform fails. A program that fails is a result.

    Attributes:
        files: files inside.
        commands: shell commands.
        env: environment variables of the whole sandbox.
        cache: what the agent keeps to be quicker.
        network: what it may reach, and what it did there.
        secrets: changes the values of its secrets.
        info: what the server said last; `get_info` asks again.
    """

    def __init__(self, info: SandboxInfo, control: AsyncControlPlane) -> None:
        """For `create` and `connect`; takes over `control` and closes it."""
        self.info = info
        self._control = control
        self._link = AsyncAgentLink(control, info)
        self.files = AsyncFiles(self._link)
        self.commands = AsyncCommands(self._link)
        self.env = AsyncEnvironment(self._link)
        self.cache = AsyncCache(self._link)
        self.network = AsyncNetwork(control, info.id, self._reaches)
        self.secrets = AsyncSandboxSecrets(control, info.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info.id} {self.info.status} ({self.info.isolation})>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.kill()
        except CoveError:
            # The caller's own exception says more; and the sandbox still has its deadline.
            if raised is None:
                raise

    @classmethod
    def create(
        cls,
        template: str | None = None,
        *,
        template_id: str | int | None = None,
        region: str | None = None,
        timeout_seconds: int | None = None,
        internet_access: bool | None = None,
        network: NetworkPolicy | Mapping[str, Any] | None = None,
        preview_access: PreviewAccess | str | None = None,
        env_vars: Mapping[str, str] | None = None,
        secrets: Mapping[str, SandboxSecret | Mapping[str, Any]] | None = None,
        resources: ResourcesRequest | Mapping[str, int] | None = None,
        isolation: Isolation | str | None = None,
        name: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> Creation[Self]:
        """Start a sandbox, in one request; it runs when this returns.

        Args:
            template: its name; `code-interpreter` when neither this nor `template_id` is given.
            template_id: its id instead.
            region: where, on servers that have several.
            timeout_seconds: seconds until it is killed; 0 means never; absent means the server's default.
            internet_access: whether the public internet should be reachable; `info` says what is in force.
            network: what should be reachable instead, for example `{"allow": ["api.example.com"]}`: `preset` (`none`,
                `public`, `package-registries`), `allow`, `deny`. One that cannot be enforced is refused.
            preview_access: who may reach programs inside: `public`, or `token` for those with a link (`preview_link`);
                absent means the server's default.
            env_vars: environment of everything that runs inside.
            secrets: variables that hold placeholders inside; on their way out, in requests over TLS to these hosts,
                they become the values: `{"OPENAI_API_KEY": {"value": "sk-...", "hosts": ["api.openai.com"]}}`, or
                `{"from_vault": "openai"}` for one that the server keeps (`ControlPlane.vault`). `places` says where
                in a request: `headers` (the default), `query`, `body`. The network has to allow these hosts.
            resources: limits: `vcpu`, `memory_mb`, `disk_mb`, `pids`, `open_files`, `inodes`, `cpu_share` (100 is
                normal), `max_execution_seconds`, `max_output_bytes`, `network_mbps` (each way, to the outside); absent
                ones take the template's default.
            isolation: `namespace`, `gvisor`, ... to insist on; absent means the server's choice.
            name: finds it again; no two of a namespace that have not ended have the same.
            api_key: else `COVE_API_KEY`.
            base_url: else `COVE_BASE_URL`, else http://127.0.0.1:5555; `http+unix:///path` names a unix socket.
            namespace: where, for keys that may enter several; else the key's own.
            transport: carries every request instead of sockets; the caller closes it.

        Raises:
            NotFound: no such template.
            Conflict: the name is taken.
            Unsupported: this server cannot give what is asked for; nothing was started.
            LimitExceeded: a quota.
        """

        async def make() -> Self:
            control = AsyncControlPlane(api_key=api_key, base_url=base_url, namespace=namespace, transport=transport)
            try:
                info = await control.create(
                    template,
                    template_id=template_id,
                    region=region,
                    timeout_seconds=timeout_seconds,
                    internet_access=internet_access,
                    network=network,
                    preview_access=preview_access,
                    env_vars=env_vars,
                    secrets=secrets,
                    resources=resources,
                    isolation=isolation,
                    name=name,
                )
                return cls(info, control)
            except BaseException:
                await control.aclose()
                raise

        return begin(make)

    @classmethod
    async def connect(
        cls,
        sandbox_id: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> Self:
        """A sandbox that exists already. A paused one is resumed.

        Raises:
            NotFound: there is none with this id.
            Conflict: it does not run, and cannot be resumed.
        """
        control = AsyncControlPlane(api_key=api_key, base_url=base_url, namespace=namespace, transport=transport)
        try:
            info = await control.get(sandbox_id)
            if info.status is SandboxStatus.PAUSED:
                answer = await control.resume(sandbox_id)
                info = info.model_copy(update={"status": answer.status})
            return cls(_running(info), control)
        except BaseException:
            await control.aclose()
            raise

    @classmethod
    async def list(
        cls,
        *,
        status: SandboxStatus | str | None = None,
        region: str | None = None,
        name: str | None = None,
        limit: int = 100,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> builtins.list[Self]:
        """At most `limit` sandboxes (1 to 1000), the page that the server shows first."""
        async with AsyncControlPlane(
            api_key=api_key, base_url=base_url, namespace=namespace, transport=transport
        ) as control:
            page = await control.page(status=status, region=region, name=name, limit=limit)
            return [cls(info, AsyncControlPlane(wire=control.wire.another())) for info in page.data]

    @classmethod
    async def iter(
        cls,
        *,
        status: SandboxStatus | str | None = None,
        region: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> AsyncIterator[Self]:
        """All sandboxes, fetched page by page."""
        async with AsyncControlPlane(
            api_key=api_key, base_url=base_url, namespace=namespace, transport=transport
        ) as control:
            async for info in control.sandboxes(status=status, region=region):
                yield cls(info, AsyncControlPlane(wire=control.wire.another()))

    @classmethod
    async def list_templates(
        cls,
        *,
        category: str | None = None,
        language: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> builtins.list[TemplateInfo]:
        """Templates that sandboxes can be created from."""
        async with AsyncControlPlane(
            api_key=api_key, base_url=base_url, namespace=namespace, transport=transport
        ) as control:
            return [*await control.templates(category=category, language=language)]

    @classmethod
    async def get_template(
        cls,
        name: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> TemplateInfo:
        """One template, by name or id.

        Raises:
            NotFound: there is none.
        """
        async with AsyncControlPlane(
            api_key=api_key, base_url=base_url, namespace=namespace, transport=transport
        ) as control:
            return await control.template(name)

    @classmethod
    async def health_check(
        cls, *, base_url: str | None = None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> dict[str, Any]:
        """What the server says of itself; needs no key."""
        async with AsyncControlPlane(base_url=base_url, transport=transport) as control:
            return await control.health()

    @classmethod
    async def delete(
        cls,
        sandbox_id: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """End a sandbox by its id.

        Raises:
            NotFound: there is none.
        """
        async with AsyncControlPlane(
            api_key=api_key, base_url=base_url, namespace=namespace, transport=transport
        ) as control:
            await control.delete(sandbox_id)

    @property
    def sandbox_id(self) -> str:
        """Ten digits and eight characters."""
        return self.info.id

    @cached_property
    def terminal(self) -> "AsyncTerminal":
        """Shells with a screen."""
        from cove.sdk._async.terminal import AsyncTerminal

        return AsyncTerminal(self._link)

    @property
    def isolation(self) -> Isolation:
        """Which wall stands between the code and the host."""
        return self.info.isolation

    async def set_timeout(self, seconds: int) -> TimeoutAnswer:
        """Move the deadline to `seconds` from now; 0 removes it."""
        return await self._control.set_timeout(self.info.id, seconds)

    async def pause(self) -> None:
        """Freeze everything inside; memory stays as it is. The deadline runs on."""
        self._now(await self._control.pause(self.info.id))

    async def resume(self) -> None:
        """Thaw it."""
        self._now(await self._control.resume(self.info.id))

    async def stop(self) -> None:
        """End everything that runs inside and keep the disk. The deadline runs on.

        Raises:
            Unsupported: the server cannot keep disks.
        """
        self._now(await self._control.stop(self.info.id))

    async def start(self) -> None:
        """Start a stopped one again, on its disk, under its id."""
        self._now(await self._control.start(self.info.id))

    async def kill(self) -> None:
        """End it and close the connections. One that is gone already is fine."""
        try:
            await self._control.kill(self.info.id)
        except CoveError as failure:
            if failure.code not in _GONE:
                raise
        finally:
            await self._control.aclose()

    async def aclose(self) -> None:
        """Close the connections and leave the sandbox as it is."""
        await self._control.aclose()

    async def refresh_token(self) -> None:
        """Get a new token for the agent. Calls do it on their own when theirs has expired."""
        await self._link.refresh_token()

    async def get_token(self) -> str:
        """A bearer token for `agent_url`, valid for this sandbox only."""
        return await self._link.token()

    def _reaches(self, policy: EgressPolicy | None) -> None:
        public = policy is not None and policy.is_public
        self.info = self.info.model_copy(update={"network": policy, "internet_access": public})

    def _now(self, answer: StatusAnswer) -> None:
        self.info = self.info.model_copy(update={"status": answer.status})


def _running(info: SandboxInfo) -> SandboxInfo:
    if info.status is not SandboxStatus.RUNNING:
        remedy = f"`cove sandboxes start {info.id}`, or start() of one that list() gives."
        stopped = info.status is SandboxStatus.STOPPED
        raise error(
            "INVALID_STATE", f"Sandbox {info.id} is {info.status}, not running.", remedy=remedy if stopped else ""
        )
    return info
