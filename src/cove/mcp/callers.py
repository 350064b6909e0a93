"""On whose behalf tools act: the SDK with somebody's key, and the sandboxes that this somebody has used."""

import time
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from cove.models.errors import CoveError
from cove.models.sandboxes import AgentToken, CreatedSandbox, SandboxInfo
from cove.models.scopes import Scope
from cove.sdk import AsyncControlPlane, AsyncSandbox

_REMEMBERED = 4096
_MARGIN_SECONDS = 60.0


class Handles:
    """Sandboxes with a valid token of their agent, so that a call need not ask for both again.

    An entry belongs to one owner: whoever else names the sandbox has to ask the control plane, which refuses.
    """

    def __init__(self, *, limit: int = _REMEMBERED) -> None:
        self._limit = limit
        self._known: OrderedDict[tuple[str, str], CreatedSandbox] = OrderedDict()

    def get(self, owner: str, sandbox_id: str) -> CreatedSandbox | None:
        """What is known, if its token is still good."""
        known = self._known.get((owner, sandbox_id))
        if known is None or known.token_expires_at.timestamp() < time.time() + _MARGIN_SECONDS:
            return None
        self._known.move_to_end((owner, sandbox_id))
        return known

    def keep(self, owner: str, sandbox: CreatedSandbox) -> None:
        """Remember a sandbox; the one that was not used for the longest time is forgotten when there are too many."""
        self._known[owner, sandbox.id] = sandbox
        self._known.move_to_end((owner, sandbox.id))
        while len(self._known) > self._limit:
            self._known.popitem(last=False)

    def forget(self, owner: str, sandbox_id: str) -> None:
        """Ask anew next time. Idempotent."""
        self._known.pop((owner, sandbox_id), None)


class Caller:
    """Whoever calls tools.

    Attributes:
        control: the server's API with the caller's key.
        scopes: what the key allows; the control plane checks it too.
    """

    def __init__(self, control: AsyncControlPlane, *, owner: str, scopes: frozenset[Scope], handles: Handles) -> None:
        """`owner` names the holder of the key among all those that share `handles`."""
        self.control = control
        self.scopes = scopes
        self._owner = owner
        self._handles = handles

    async def sandbox(self, sandbox_id: str) -> AsyncSandbox:
        """The sandbox with this id. Do not close it: its connections are the caller's.

        Raises:
            NotFound: there is none that this caller may see.
        """
        known = self._handles.get(self._owner, sandbox_id)
        if known is None:
            info = await self.control.get(sandbox_id)
            known = _with_token(info, await self.control.refresh_token(sandbox_id))
            self._handles.keep(self._owner, known)
        return AsyncSandbox(known, self.control)

    async def create(self, template: str | None = None, **options: Any) -> AsyncSandbox:
        """A new sandbox; options as of `AsyncControlPlane.create`."""
        created = await self.control.create(template, **options)
        self._handles.keep(self._owner, created)
        return AsyncSandbox(created, self.control)

    def forget(self, sandbox_id: str) -> None:
        """The sandbox has ended, or is not what it was."""
        self._handles.forget(self._owner, sandbox_id)

    def forget_after(self, failure: CoveError, sandbox_id: str) -> None:
        """Forget the sandbox if `failure` says that it is not as it is remembered."""
        if failure.code in _STALE:
            self.forget(sandbox_id)


_STALE = frozenset(
    {"SANDBOX_NOT_FOUND", "SANDBOX_EXPIRED", "SANDBOX_DIED", "INVALID_STATE", "UNAUTHORIZED", "AGENT_UNREACHABLE"}
)


class Callers(Protocol):
    """Finds out who makes a request. Implemented by each transport."""

    def of(self, request: Any) -> AbstractAsyncContextManager[Caller]:
        """The caller for the time of one request; `request` is the HTTP request, or None over stdio.

        Raises:
            CoveError: there is no server to ask, or it does not know the key.
        """
        ...

    def scopes(self, request: Any) -> frozenset[Scope]:
        """What the caller may do, as far as it is known without asking anybody: tools beyond that are not listed."""
        ...


def _with_token(info: SandboxInfo, token: AgentToken) -> CreatedSandbox:
    return CreatedSandbox(**info.model_dump(), auth_token=token.auth_token, token_expires_at=token.token_expires_at)
