"""The caller over stdio: whoever started the program, attached to a server when the first call needs one."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from cove.mcp.callers import Caller, Handles
from cove.models.errors import error
from cove.models.scopes import ALL_SCOPES, Scope
from cove.sdk import AsyncControlPlane, AsyncSandbox

_OWNER = "self"
_REMEMBERED = 4096


class Attachment(Protocol):
    """A server as this process reaches it.

    Attributes:
        control: its API, with the key that was got for it.
        lost: it is no more, and the sandboxes that were made over it are not either.
    """

    @property
    def control(self) -> AsyncControlPlane: ...

    @property
    def lost(self) -> bool: ...

    async def aclose(self) -> None:
        """Let go of it."""
        ...


Attach = Callable[[], Awaitable[Attachment]]
"""Finds or starts a server; raises CoveError when there is none to be had."""


class AttachedCaller:
    """Implements `Callers` for one user, attaching again when the server was lost."""

    def __init__(self, attach: Attach) -> None:
        self._attach = attach
        self._attaching = asyncio.Lock()
        self._attachment: Attachment | None = None
        self._caller: _Remembering | None = None
        self._gone: dict[str, None] = {}

    @asynccontextmanager
    async def of(self, request: Any) -> AsyncGenerator[Caller]:
        """The one caller there is."""
        yield await self._attached()

    def scopes(self, request: Any) -> frozenset[Scope]:
        """All: what the key allows is for the server to say."""
        return ALL_SCOPES

    async def aclose(self) -> None:
        """Let go of the server."""
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            await attachment.aclose()

    async def _attached(self) -> Caller:
        async with self._attaching:
            if self._attachment is not None and self._attachment.lost:
                await self._detach()
            if self._attachment is None or self._caller is None:
                self._attachment = await self._attach()
                self._caller = _Remembering(self._attachment.control, gone=self._gone)
            return self._caller

    async def _detach(self) -> None:
        if self._caller is not None:
            self._gone.update(self._caller.made)
            for sandbox_id in list(self._gone)[:-_REMEMBERED]:
                del self._gone[sandbox_id]
        await self.aclose()


class _Remembering(Caller):
    """Tells sandboxes that were lost with their server from those that never were."""

    def __init__(self, control: AsyncControlPlane, *, gone: dict[str, None]) -> None:
        super().__init__(control, owner=_OWNER, scopes=ALL_SCOPES, handles=Handles())
        self.made: dict[str, None] = {}
        self._lost = gone

    async def sandbox(self, sandbox_id: str) -> AsyncSandbox:
        """As inherited; says what became of those of an earlier server."""
        if sandbox_id in self._lost:
            raise error(
                "SANDBOX_EXPIRED",
                f"Sandbox {sandbox_id} is no more: the local server that ran it has ended.",
                remedy="Create a new one; a new server runs already.",
            )
        return await super().sandbox(sandbox_id)

    async def create(self, template: str | None = None, **options: Any) -> AsyncSandbox:
        """As inherited."""
        sandbox = await super().create(template, **options)
        self.made[sandbox.sandbox_id] = None
        if len(self.made) > _REMEMBERED:
            del self.made[next(iter(self.made))]
        return sandbox
