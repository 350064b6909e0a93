"""For commands that work straight in the store of a data directory, whether or not its server runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cove.cli.locations import data_directory

if TYPE_CHECKING:
    from cove.server.settings import Settings

_S = TypeVar("_S")
_T = TypeVar("_T")


def with_store(
    data_dir: Path | None,
    opening: Callable[[Settings], AbstractAsyncContextManager[_S]],
    action: Callable[[_S], Awaitable[_T]],
) -> _T:
    """What `action` makes of what was opened. Files that come to be meanwhile are the server's user's, not root's.

    Raises:
        CoveError: STORE_UNAVAILABLE, and what `action` raises.
    """
    import asyncio

    from cove.server.ownership import become_owner_of_store
    from cove.server.settings import Settings

    async def act() -> _T:
        async with opening(settings) as opened:
            return await action(opened)

    settings = Settings(data_dir=data_directory(data_dir))
    settings.data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    become_owner_of_store(settings.data_dir)
    return asyncio.run(act())
