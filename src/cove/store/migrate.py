"""Bringing the schema up to date at start: one SELECT when it is, alembic only when it is not."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from cove.models.errors import error

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0011"
"""The newest revision in `migrations/versions`; a test compares the two."""

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(reading: Engine, writing: Engine) -> None:
    """Upgrade to `HEAD`. Processes that start together take turns: the revision is read again under the write lock.

    Raises:
        CoveError: STORE_UNAVAILABLE when a newer Cove wrote the store.
    """
    with reading.connect() as connection:
        if _revision(connection) == HEAD:
            return
    with writing.begin() as connection:
        _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    """Run alembic on this connection, inside its transaction. Importing it takes longer than everything else here."""
    current = _revision(connection)
    if current == HEAD:
        return
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise error(
            "STORE_UNAVAILABLE",
            f"The store has the schema {current!r}, which this version of Cove does not know.",
            remedy="A newer version wrote it: run that one, or use another data directory.",
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def alembic_config() -> "Config":
    """The configuration of the migrations that are part of the package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
