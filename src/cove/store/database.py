"""The store: units of work over one database, each run as a whole on a thread of its own.

The event loop waits for one result a transaction. (Asynchronous drivers hop between threads for every cursor call
instead: sixteen times for one create, which costs more than all the rest of a request.)
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from cove.models.errors import error
from cove.store.creates import SqlCreateRepository
from cove.store.engine import READERS, WRITES, open_engine, sqlite_url, writers_of
from cove.store.events import SqlEventRepository
from cove.store.executions import SqlExecutionRepository
from cove.store.failures import as_cove_error
from cove.store.keys import SqlKeyRepository
from cove.store.migrate import migrate
from cove.store.namespaces import SqlNamespaceRepository
from cove.store.sandboxes import SqlSandboxRepository
from cove.store.secrets import SqlSecretRepository
from cove.store.templates import SqlTemplateRepository
from cove.store.usage import SqlUsageRepository

T = TypeVar("T")

_WAIT_SECONDS = 20.0
_MAX_WAITING = 2000


class SqlUnitOfWork:
    """The repositories, on one connection and in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @cached_property
    def sandboxes(self) -> SqlSandboxRepository:
        """The sandboxes."""
        return SqlSandboxRepository(self._connection)

    @cached_property
    def templates(self) -> SqlTemplateRepository:
        """The templates."""
        return SqlTemplateRepository(self._connection)

    @cached_property
    def keys(self) -> SqlKeyRepository:
        """The API keys."""
        return SqlKeyRepository(self._connection)

    @cached_property
    def events(self) -> SqlEventRepository:
        """The events."""
        return SqlEventRepository(self._connection)

    @cached_property
    def namespaces(self) -> SqlNamespaceRepository:
        """The namespaces."""
        return SqlNamespaceRepository(self._connection)

    @cached_property
    def creates(self) -> SqlCreateRepository:
        """Creates that can be repeated."""
        return SqlCreateRepository(self._connection)

    @cached_property
    def secrets(self) -> SqlSecretRepository:
        """The secrets of namespaces."""
        return SqlSecretRepository(self._connection)

    @cached_property
    def usage(self) -> SqlUsageRepository:
        """What namespaces used."""
        return SqlUsageRepository(self._connection)

    @cached_property
    def executions(self) -> SqlExecutionRepository:
        """The asynchronous executions."""
        return SqlExecutionRepository(self._connection)


class Database:
    """Implements the core's `Store` (`work` gets an `SqlUnitOfWork`).

    Use it as an async context manager: it migrates on entry and closes at the end.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(**{WRITES: True})
        self._writers = ThreadPoolExecutor(writers_of(engine), thread_name_prefix="cove-store-write")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="cove-store-read")
        self._waiting = 0
        self._closed = False

    @classmethod
    def at(cls, url: str) -> Self:
        """The database at an SQLAlchemy URL, for example `postgresql+psycopg://...`."""
        return cls(open_engine(url))

    @classmethod
    def at_path(cls, path: Path) -> Self:
        """The SQLite database in a file, which is created if need be."""
        return cls.at(sqlite_url(path))

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Bring the schema up to date.

        Raises:
            CoveError: STORE_UNAVAILABLE, DISK_FULL; nothing stays open then.
        """
        try:
            await self._run(self._writers, self._migrate)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what has begun and close all connections. Idempotent."""
        self._closed = True
        await asyncio.to_thread(self._shut_down)

    async def write(self, work: Callable[[Any], T]) -> T:
        """Run `work` in a transaction that commits when it returns, and leaves nothing when it raises."""
        return await self._run(self._writers, lambda: self._transact(work))

    async def read(self, work: Callable[[Any], T]) -> T:
        """Run `work`, which only reads; several statements need not see the same state."""
        return await self._run(self._readers, lambda: self._look(work))

    def _migrate(self) -> None:
        try:
            migrate(self._engine, self._writing)
        except SQLAlchemyError as failure:
            raise as_cove_error(failure) from failure

    def _transact(self, work: Callable[[Any], T]) -> T:
        try:
            with self._writing.begin() as connection:
                return work(SqlUnitOfWork(connection))
        except SQLAlchemyError as failure:
            raise as_cove_error(failure) from failure

    def _look(self, work: Callable[[Any], T]) -> T:
        try:
            with self._engine.connect() as connection:
                return work(SqlUnitOfWork(connection))
        except SQLAlchemyError as failure:
            raise as_cove_error(failure) from failure

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Wait for `work` on one of `threads`; both the wait and the queue are bounded."""
        if self._closed:
            raise error("STORE_UNAVAILABLE", "The store is closed: the server is stopping.")
        if self._waiting >= _MAX_WAITING:
            raise error("STORE_UNAVAILABLE", "The store is busy: too many requests wait for it.")
        self._waiting += 1
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(threads, work)
        except TimeoutError:
            raise error("STORE_UNAVAILABLE", f"The store did not answer within {_WAIT_SECONDS:.0f} s.") from None
        finally:
            self._waiting -= 1

    def _shut_down(self) -> None:
        self._writers.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._engine.dispose()
