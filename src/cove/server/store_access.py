"""Opening the store that the settings name: for the server, and for programs that only want its keys."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from cove.core.keys import ApiKeys
from cove.server.settings import Settings
from cove.store.database import Database


def open_store(settings: Settings) -> Database:
    """The store; not opened yet. `Database` is an async context manager."""
    if settings.database_url is not None:
        return Database.at(settings.database_url)
    return Database.at_path(settings.data_dir / "cove.db")


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncGenerator[ApiKeys]:
    """The API keys of a data directory, for programs other than the server; it may run at the same time."""
    async with open_store(settings) as store:
        yield ApiKeys(store)
