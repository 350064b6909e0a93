"""The REST control plane: sandboxes and templates by name."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx2

from cove.models.errors import error
from cove.models.isolation import Isolation
from cove.models.network import NetworkPolicy, SandboxNetwork
from cove.models.previews import DEFAULT_LINK_SECONDS, PreviewAccess, PreviewLink, SandboxPreviews
from cove.models.sandboxes import (
    AgentToken,
    CreatedSandbox,
    ResourcesRequest,
    SandboxInfo,
    SandboxPage,
    SandboxStatus,
    SandboxUsage,
    StatusAnswer,
    TimeoutAnswer,
)
from cove.models.secrets import SandboxSecret
from cove.models.templates import TemplateInfo, TemplatePage
from cove.models.volumes import VolumeCopied
from cove.sdk import _requests as requests
from cove.sdk._async.secrets import AsyncVault
from cove.sdk._async.wire import AsyncWire
from cove.sdk._endpoint import resolve_endpoint
from cove.sdk._failures import parse, parse_object
from cove.sdk._retry import Retry

if TYPE_CHECKING:
    from cove.models.async_executions import AsyncExecutionInfo
    from cove.models.audit import AuditEntry, AuditPage
    from cove.sdk._async.leasing import AsyncLeasedControlPlane  # async only

PAGE_SIZE = 100


class AsyncControlPlane:
    """A server's sandboxes and templates.

    Args:
        api_key: else `COVE_API_KEY`; none is needed with `cove serve --dev`.
        base_url: else `COVE_BASE_URL`, else http://127.0.0.1:5555; `http+unix:///path` names a unix socket.
        namespace: which one all of this is about, for keys that may enter several; else the key's own. `*` is all of
            them, for `get` and for lists.
        transport: carries every request instead of sockets, for example an embedded ASGI application. The caller
            closes it.
        max_answer_bytes: the most that is read of any answer; a larger one is REQUEST_TOO_LARGE. By default each call
            has its own bound, 128 MiB for most.

    Every method raises `CoveError`: NETWORK_ERROR when no server answers, TIMEOUT, AUTHENTICATION_REQUIRED, and what
    is said beside it.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        namespace: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        max_answer_bytes: int | None = None,
        wire: AsyncWire | None = None,
    ) -> None:
        self.wire = wire or AsyncWire(
            resolve_endpoint(base_url=base_url, api_key=api_key, namespace=namespace),
            given=transport,
            max_answer_bytes=max_answer_bytes,
        )
        self._headers = self.wire.endpoint.control_headers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.wire.aclose()

    @property
    def vault(self) -> AsyncVault:
        """The secrets that the server keeps for the namespace."""
        return AsyncVault(self)

    def in_namespace(self, namespace: str) -> Self:
        """The same for another namespace, for keys that may enter several. It shares the connections: close only the
        one that it was made of.

        Raises:
            InvalidRequest: there can be no such namespace.
        """
        other = copy(self)
        other._headers = self.wire.endpoint.within(namespace).control_headers
        return other

    async def health(self) -> dict[str, Any]:
        """What the server says of itself; needs no key."""
        return parse_object(await self.wire.send(self.wire.endpoint.url, requests.get("/health", timeout=10.0)))

    async def create(
        self,
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
    ) -> CreatedSandbox:
        """Start a sandbox, in one request; it runs when this returns. See `AsyncSandbox.create`."""
        call = requests.create(
            template,
            template_id=template_id,
            region=region,
            timeout_seconds=timeout_seconds,
            internet_access=internet_access,
            network=network,
            preview_access=preview_access,
            env_vars=None if env_vars is None else dict(env_vars),
            secrets=None if secrets is None else dict(secrets),
            resources=resources,
            isolation=isolation,
            name=name,
        )
        return parse(CreatedSandbox, await self.send(call))

    async def get(self, sandbox_id: str) -> SandboxInfo:
        """One sandbox.

        Raises:
            NotFound: there is none with this id that the key may see.
        """
        return parse(SandboxInfo, await self.send(requests.get(requests.sandbox_path(sandbox_id))))

    async def usage(self, sandbox_id: str) -> SandboxUsage:
        """What a sandbox uses now, each with its limit, as its host counts it.

        Raises:
            NotFound: there is none with this id that the key may see.
        """
        return parse(SandboxUsage, await self.send(requests.get(requests.sandbox_path(sandbox_id, "/usage"))))

    async def network(self, sandbox_id: str, *, after: int = 0) -> SandboxNetwork:
        """What a sandbox may reach and what it did on the network: totals, and the latest connections and look-ups,
        those with a sequence number above `after`.

        Raises:
            NotFound: there is none with this id that the key may see.
        """
        return parse(SandboxNetwork, await self.send(requests.network(sandbox_id, after=after)))

    async def set_network(self, sandbox_id: str, network: NetworkPolicy | Mapping[str, Any]) -> SandboxNetwork:
        """Change what a sandbox may reach, at once and as a whole; connections that are not allowed any more are cut.
        The answer's `policy` is what is in force; None when nothing can be reached.

        Raises:
            NotFound: there is none with this id that the key may see.
            InvalidRequest: there can be no such policy.
            Unsupported: sandboxes of its isolation have no network.
        """
        return parse(SandboxNetwork, await self.send(requests.set_network(sandbox_id, network)))

    async def page(
        self,
        *,
        status: SandboxStatus | str | None = None,
        region: str | None = None,
        name: str | None = None,
        limit: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> SandboxPage:
        """One page of the list."""
        call = requests.list_sandboxes(status=status, region=region, name=name, limit=limit, cursor=cursor)
        return parse(SandboxPage, await self.send(call))

    async def sandboxes(
        self, *, status: SandboxStatus | str | None = None, region: str | None = None, name: str | None = None
    ) -> AsyncIterator[SandboxInfo]:
        """All of them, or the one with this name, page by page as they are needed."""
        cursor: str | None = None
        while True:
            page = await self.page(status=status, region=region, name=name, cursor=cursor)
            for info in page.data:
                yield info
            cursor = _next_cursor(cursor, page.next_cursor, has_more=page.has_more)
            if cursor is None:
                return

    async def delete(self, sandbox_id: str) -> None:
        """End a sandbox and remove it.

        Raises:
            NotFound: there is none with this id.
        """
        await self.send(requests.Call(method="DELETE", path=requests.sandbox_path(sandbox_id)))

    async def kill(self, sandbox_id: str, *, wait: bool = True) -> None:
        """As `delete`, but repeated when the connection is lost. Without `wait` the sandbox has ended for everyone when
        this returns, and what it held on its host is freed a moment later."""
        path = requests.sandbox_path(sandbox_id)
        headers = () if wait else (("Prefer", "respond-async"),)
        await self.send(requests.Call(method="DELETE", path=path, retry=Retry.IDEMPOTENT, headers=headers))

    async def pause(self, sandbox_id: str) -> StatusAnswer:
        """Freeze everything in it; a paused sandbox stays paused."""
        return parse(StatusAnswer, await self.send(requests.lifecycle(sandbox_id, "pause")))

    async def resume(self, sandbox_id: str) -> StatusAnswer:
        """Thaw it; a running sandbox stays running."""
        return parse(StatusAnswer, await self.send(requests.lifecycle(sandbox_id, "resume")))

    async def stop(self, sandbox_id: str) -> StatusAnswer:
        """End everything that runs in it and keep its disk; a stopped sandbox stays stopped."""
        return parse(StatusAnswer, await self.send(requests.lifecycle(sandbox_id, "stop")))

    async def start(self, sandbox_id: str) -> StatusAnswer:
        """Start a stopped one on its disk; a running sandbox stays running."""
        return parse(StatusAnswer, await self.send(requests.lifecycle(sandbox_id, "start")))

    async def set_timeout(self, sandbox_id: str, seconds: int) -> TimeoutAnswer:
        """Move the deadline to `seconds` from now; 0 removes it."""
        return parse(TimeoutAnswer, await self.send(requests.set_timeout(sandbox_id, seconds)))

    async def preview_link(self, sandbox_id: str, port: int, *, expires_in: int = DEFAULT_LINK_SECONDS) -> PreviewLink:
        """A link to a program in a sandbox that listens on `port`, for whoever has it; see `AsyncSandbox.preview_link`.

        Raises:
            NotFound: there is none with this id that the key may see.
        """
        return parse(PreviewLink, await self.send(requests.preview_link(sandbox_id, port=port, expires_in=expires_in)))

    async def set_preview_access(self, sandbox_id: str, access: PreviewAccess | str) -> SandboxPreviews:
        """Change who may reach programs in a sandbox, from the next request on: `public`, or `token`."""
        return parse(SandboxPreviews, await self.send(requests.set_preview_access(sandbox_id, access)))

    async def revoke_preview_links(self, sandbox_id: str) -> SandboxPreviews:
        """End all links that were made for a sandbox, from the next request on."""
        path = requests.sandbox_path(sandbox_id, "/previews")
        call = requests.Call(method="DELETE", path=path, retry=Retry.IDEMPOTENT)
        return parse(SandboxPreviews, await self.send(call))

    async def copy_volume(self, sandbox_id: str, host_path: str, path: str) -> VolumeCopied:
        """Copy a directory of the server's machine into the directory `path` of a sandbox. Changes do not come back.

        Raises:
            PermissionRefused: the server's operator has not allowed it.
            LimitExceeded: it is too large.
        """
        return parse(VolumeCopied, await self.send(requests.copy_volume(sandbox_id, host_path, path)))

    async def refresh_token(self, sandbox_id: str) -> AgentToken:
        """A new token for the sandbox's agent."""
        return parse(AgentToken, await self.send(requests.lifecycle(sandbox_id, "token/refresh")))

    async def executions(self, *, sandbox_id: str | None = None) -> "AsyncIterator[AsyncExecutionInfo]":
        """Asynchronous executions and what became of their webhooks, newest first, page by page."""
        from cove.models.async_executions import AsyncExecutionPage

        cursor: str | None = None
        while True:
            path = requests.with_query("/v1/executions", limit=PAGE_SIZE, sandbox_id=sandbox_id, cursor=cursor)
            page = parse(AsyncExecutionPage, await self.send(requests.get(path)))
            for info in page.data:
                yield info
            cursor = _next_cursor(cursor, page.next_cursor, has_more=page.has_more)
            if cursor is None:
                return

    async def execution(self, execution_id: str) -> "AsyncExecutionInfo":
        """One of them.

        Raises:
            NotFound: there is none with this id.
        """
        from cove.models.async_executions import AsyncExecutionInfo

        return parse(AsyncExecutionInfo, await self.send(requests.get(requests.execution_path(execution_id))))

    async def redeliver(self, execution_id: str) -> "AsyncExecutionInfo":
        """Send its webhook now: once more, or sooner than it would be."""
        from cove.models.async_executions import AsyncExecutionInfo

        path = requests.execution_path(execution_id, "/redeliver")
        return parse(AsyncExecutionInfo, await self.send(requests.Call(method="POST", path=path)))

    async def audit_page(
        self,
        *,
        sandbox_id: str | None = None,
        actor: str | None = None,
        subject: str | None = None,
        action: str | None = None,
        outcome: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> "AuditPage":
        """One page of the audit log, newest first; it may be short, or empty, although there are more. See `audit`."""
        from cove.models.audit import AUDIT_PATH, AuditPage

        path = requests.with_query(
            AUDIT_PATH,
            sandbox_id=sandbox_id,
            actor=actor,
            subject=subject,
            action=action,
            outcome=outcome,
            since=None if since is None else since.astimezone(UTC).isoformat(),
            until=None if until is None else until.astimezone(UTC).isoformat(),
            limit=limit,
            cursor=cursor,
        )
        return parse(AuditPage, await self.send(requests.get(path)))

    async def audit(
        self,
        *,
        sandbox_id: str | None = None,
        actor: str | None = None,
        subject: str | None = None,
        action: str | None = None,
        outcome: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> "AsyncIterator[AuditEntry]":
        """Who did what, newest first, page by page. The key needs the scope `admin`.

        Args:
            sandbox_id: what concerns this sandbox.
            actor: what this key did: its id.
            action: what actions begin with, for example `sandbox.` or `code.run`.
            outcome: `ok`, or the code of an error.
        """
        cursor: str | None = None
        while True:
            page = await self.audit_page(
                sandbox_id=sandbox_id,
                actor=actor,
                subject=subject,
                action=action,
                outcome=outcome,
                since=since,
                until=until,
                cursor=cursor,
            )
            for entry in page.data:
                yield entry
            cursor = _next_cursor(cursor, page.next_cursor, has_more=page.has_more)
            if cursor is None:
                return

    async def templates(self, *, category: str | None = None, language: str | None = None) -> tuple[TemplateInfo, ...]:
        """Templates that sandboxes can be created from."""
        call = requests.get(requests.with_query("/v1/templates", category=category, language=language))
        return parse(TemplatePage, await self.send(call)).data

    async def template(self, name: str) -> TemplateInfo:
        """One template, by name or id.

        Raises:
            NotFound: there is none.
        """
        return parse(TemplateInfo, await self.send(requests.get(requests.template_path(name))))

    def lease(self) -> "AbstractAsyncContextManager[AsyncLeasedControlPlane]":  # async only
        """A control plane whose sandboxes end with the block, or with this program however it ends."""  # async only
        from cove.sdk._async.leasing import leased  # async only

        return leased(self)  # async only

    def stream(self, call: requests.Call) -> "AbstractAsyncContextManager[AsyncIterator[bytes]]":
        """An answer in pieces, as they come."""
        return self.wire.stream(self.wire.endpoint.url, call, headers=self._headers)

    async def send(self, call: requests.Call) -> bytes:
        """A request's answer as a whole."""
        return await self.wire.send(self.wire.endpoint.url, call, headers=self._headers)


def _next_cursor(cursor: str | None, following: str | None, *, has_more: bool) -> str | None:
    """Where the next page begins; None after the last one."""
    if not has_more:
        return None
    if following is None or following == cursor:
        raise error("INTERNAL_ERROR", "The server says that there is more, but not where.")
    return following
