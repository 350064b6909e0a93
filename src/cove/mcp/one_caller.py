"""One caller for the life of a process: over stdio, whoever started the program asks for everything."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from cove.mcp.callers import Caller, Handles
from cove.models.scopes import ALL_SCOPES, Scope
from cove.sdk import AsyncControlPlane

_OWNER = "self"


class OneCaller:
    """Implements `Callers` with one key. What the key allows is for the server to say: all tools are listed."""

    def __init__(self, control: AsyncControlPlane) -> None:
        """`control` stays the owner's to close."""
        self._caller = Caller(control, owner=_OWNER, scopes=ALL_SCOPES, handles=Handles())

    @asynccontextmanager
    async def of(self, request: Any) -> AsyncGenerator[Caller]:
        """The one caller there is."""
        yield self._caller

    def scopes(self, request: Any) -> frozenset[Scope]:
        """All."""
        return self._caller.scopes
