"""The one file that knows which database it talks to."""

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

WRITES = "cove_writes"
"""Execution option that marks a connection whose transaction is going to write."""

READERS = 2
"""Threads, and connections, that read."""

_BUSY_MILLISECONDS = 5000
_POSTGRES_WRITERS = 8


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def open_engine(url: str) -> Engine:
    """An engine for `url`, set up for many short transactions. Nothing is connected yet."""
    parsed = make_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    connections = READERS + (1 if sqlite else _POSTGRES_WRITERS)
    if not sqlite:
        return create_engine(parsed, pool_size=connections, max_overflow=0, pool_timeout=10, pool_pre_ping=True)
    _make_private(parsed)
    engine = create_engine(
        parsed, pool_size=connections, max_overflow=0, pool_timeout=10, connect_args={"isolation_level": None}
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def writers_of(engine: Engine) -> int:
    """How many transactions can write at the same time."""
    return 1 if engine.dialect.name == "sqlite" else _POSTGRES_WRITERS


def _make_private(url: URL) -> None:
    """Create the file for its owner only; SQLite gives the same mode to the `-wal` and `-shm` files beside it."""
    if url.database and url.database != ":memory:":
        path = Path(url.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)


def _set_up_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """WAL lets readers go on beside a writer; NORMAL never corrupts and spares an fsync a commit (sqlite.org/wal)."""
    cursor: Any = connection.cursor()
    for pragma in (
        f"busy_timeout={_BUSY_MILLISECONDS}",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "trusted_schema=OFF",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the start: a transaction that upgrades itself later may fail at once instead of waiting.

    Readers begin nothing: each of their statements sees a state of its own, without two more calls.
    """
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
