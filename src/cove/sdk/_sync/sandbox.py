# Generated from src/cove/sdk/_async/sandbox.py by tools/generate_sync_sdk.py. Do not edit.

"""A running sandbox as an object."""

import builtins
from collections.abc import Iterator, Mapping
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
from cove.sdk._sync.agent import AgentLink
from cove.sdk._sync.cache import Cache
from cove.sdk._sync.code import Code
from cove.sdk._sync.commands import Commands
from cove.sdk._sync.condition import Condition
from cove.sdk._sync.control import ControlPlane
from cove.sdk._sync.environment import Environment
from cove.sdk._sync.files import Files
from cove.sdk._sync.network import Network
from cove.sdk._sync.previews import Previews
from cove.sdk._sync.primitives import Creation, begin
from cove.sdk._sync.secrets import SandboxSecrets

if TYPE_CHECKING:
    from cove.sdk._sync.terminal import Terminal

_GONE = ("SANDBOX_NOT_FOUND", "SANDBOX_EXPIRED", "SANDBOX_DIED")


class Sandbox(Code, Previews, Condition):
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

    def __init__(self, info: SandboxInfo, control: ControlPlane) -> None:
        """For `create` and `connect`; takes over `control` and closes it."""
        self.info = info
        self._control = control
        self._link = AgentLink(control, info)
        self.files = Files(self._link)
        self.commands = Commands(self._link)
        self.env = Environment(self._link)
        self.cache = Cache(self._link)
        self.network = Network(control, info.id, self._reaches)
        self.secrets = SandboxSecrets(control, info.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info.id} {self.info.status} ({self.info.isolation})>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.kill()
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
        transport: httpx2.BaseTransport | None = None,
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

        def make() -> Self:
            control = ControlPlane(api_key=api_key, base_url=base_url, namespace=namespace, transport=transport)
            try:
                info = control.create(
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
                control.close()
                raise

        return begin(make)

    @classmethod
    def connect(
        cls,
        sandbox_id: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> Self:
        """A sandbox that exists already. A paused one is resumed.

        Raises:
            NotFound: there is none with this id.
            Conflict: it does not run, and cannot be resumed.
        """
        control = ControlPlane(api_key=api_key, base_url=base_url, namespace=namespace, transport=transport)
        try:
            info = control.get(sandbox_id)
            if info.status is SandboxStatus.PAUSED:
                answer = control.resume(sandbox_id)
                info = info.model_copy(update={"status": answer.status})
            return cls(_running(info), control)
        except BaseException:
            control.close()
            raise

    @classmethod
    def list(
        cls,
        *,
        status: SandboxStatus | str | None = None,
        region: str | None = None,
        name: str | None = None,
        limit: int = 100,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> builtins.list[Self]:
        """At most `limit` sandboxes (1 to 1000), the page that the server shows first."""
        with ControlPlane(api_key=api_key, base_url=base_url, namespace=namespace, transport=transport) as control:
            page = control.page(status=status, region=region, name=name, limit=limit)
            return [cls(info, ControlPlane(wire=control.wire.another())) for info in page.data]

    @classmethod
    def iter(
        cls,
        *,
        status: SandboxStatus | str | None = None,
        region: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> Iterator[Self]:
        """All sandboxes, fetched page by page."""
        with ControlPlane(api_key=api_key, base_url=base_url, namespace=namespace, transport=transport) as control:
            for info in control.sandboxes(status=status, region=region):
                yield cls(info, ControlPlane(wire=control.wire.another()))

    @classmethod
    def list_templates(
        cls,
        *,
        category: str | None = None,
        language: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> builtins.list[TemplateInfo]:
        """Templates that sandboxes can be created from."""
        with ControlPlane(api_key=api_key, base_url=base_url, namespace=namespace, transport=transport) as control:
            return [*control.templates(category=category, language=language)]

    @classmethod
    def get_template(
        cls,
        name: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> TemplateInfo:
        """One template, by name or id.

        Raises:
            NotFound: there is none.
        """
        with ControlPlane(api_key=api_key, base_url=base_url, namespace=namespace, transport=transport) as control:
            return control.template(name)

    @classmethod
    def health_check(
        cls, *, base_url: str | None = None, transport: httpx2.BaseTransport | None = None
    ) -> dict[str, Any]:
        """What the server says of itself; needs no key."""
        with ControlPlane(base_url=base_url, transport=transport) as control:
            return control.health()

    @classmethod
    def delete(
        cls,
        sandbox_id: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """End a sandbox by its id.

        Raises:
            NotFound: there is none.
        """
        with ControlPlane(api_key=api_key, base_url=base_url, namespace=namespace, transport=transport) as control:
            control.delete(sandbox_id)

    @property
    def sandbox_id(self) -> str:
        """Ten digits and eight characters."""
        return self.info.id

    @cached_property
    def terminal(self) -> "Terminal":
        """Shells with a screen."""
        from cove.sdk._sync.terminal import Terminal

        return Terminal(self._link)

    @property
    def isolation(self) -> Isolation:
        """Which wall stands between the code and the host."""
        return self.info.isolation

    def set_timeout(self, seconds: int) -> TimeoutAnswer:
        """Move the deadline to `seconds` from now; 0 removes it."""
        return self._control.set_timeout(self.info.id, seconds)

    def pause(self) -> None:
        """Freeze everything inside; memory stays as it is. The deadline runs on."""
        self._now(self._control.pause(self.info.id))

    def resume(self) -> None:
        """Thaw it."""
        self._now(self._control.resume(self.info.id))

    def stop(self) -> None:
        """End everything that runs inside and keep the disk. The deadline runs on.

        Raises:
            Unsupported: the server cannot keep disks.
        """
        self._now(self._control.stop(self.info.id))

    def start(self) -> None:
        """Start a stopped one again, on its disk, under its id."""
        self._now(self._control.start(self.info.id))

    def kill(self) -> None:
        """End it and close the connections. One that is gone already is fine."""
        try:
            self._control.kill(self.info.id)
        except CoveError as failure:
            if failure.code not in _GONE:
                raise
        finally:
            self._control.close()

    def close(self) -> None:
        """Close the connections and leave the sandbox as it is."""
        self._control.close()

    def refresh_token(self) -> None:
        """Get a new token for the agent. Calls do it on their own when theirs has expired."""
        self._link.refresh_token()

    def get_token(self) -> str:
        """A bearer token for `agent_url`, valid for this sandbox only."""
        return self._link.token()

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
