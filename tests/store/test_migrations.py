"""The schema comes from migrations that are part of the package."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from cove.models.errors import CoveError
from cove.models.scopes import ALL_SCOPES
from cove.store.database import Database
from cove.store.engine import WRITES, open_engine, sqlite_url
from cove.store.migrate import HEAD, alembic_config, migrate
from cove.store.schema import METADATA

pytestmark = pytest.mark.anyio

SOURCE = Path(__file__).parents[2] / "src"


def test_head_is_the_newest_revision() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == HEAD


def test_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    engine = open_engine(sqlite_url(tmp_path / "cove.db"))
    migrate(engine, engine.execution_options(**{WRITES: True}))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_processes_that_start_together_migrate_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from cove.store.engine import *; from cove.store.migrate import migrate\n"
        "engine = open_engine(sqlite_url(pathlib.Path(sys.argv[1])))\n"
        "migrate(engine, engine.execution_options(**{WRITES: True}))"
    )

    def run(_: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path / "cove.db")]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)

    with ThreadPoolExecutor(3) as threads:
        assert [(done.returncode, done.stderr) for done in threads.map(run, range(3))] == [(0, "")] * 3


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "cove.db"
    async with Database.at_path(path):
        pass
    engine = open_engine(sqlite_url(path))
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(CoveError) as caught:
        await Database.at_path(path).open()
    assert caught.value.code == "STORE_UNAVAILABLE"
    assert "newer version" in caught.value.remedy


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cove.db"
    path.write_bytes(b"this is not a database, and long enough to be sure" * 100)
    with pytest.raises(CoveError) as caught:
        await Database.at_path(path).open()
    assert caught.value.code == "STORE_UNAVAILABLE"


async def test_the_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "data" / "cove.db"
    async with Database.at_path(path) as database:
        await database.write(lambda unit: unit.keys.touch({"x": 1.0}))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"cove.db": 0o600, "cove.db-wal": 0o600, "cove.db-shm": 0o600}


def test_starting_again_does_not_import_alembic(tmp_path: Path) -> None:
    path = tmp_path / "cove.db"
    code = (
        "import sys, asyncio, pathlib; from cove.store.database import Database\n"
        "async def main():\n    async with Database.at_path(pathlib.Path(sys.argv[1])): pass\n"
        "asyncio.run(main()); print('alembic' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    answers = [
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert answers == ["True\n", "False\n"]


async def test_a_full_disk_is_named(tmp_path: Path) -> None:
    async with Database.at_path(tmp_path / "cove.db") as database:

        def fill(unit: Any) -> None:
            connection: Connection = unit._connection
            connection.exec_driver_sql("PRAGMA max_page_count=20")
            connection.exec_driver_sql("CREATE TABLE filler AS SELECT randomblob(1000000) AS x")

        with pytest.raises(CoveError) as caught:
            await database.write(fill)
        assert caught.value.code == "DISK_FULL"


async def test_rows_of_an_earlier_version_get_no_name_and_keys_all_scopes(tmp_path: Path) -> None:
    path = tmp_path / "cove.db"
    engine = open_engine(sqlite_url(path))
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.exec_driver_sql(
            "INSERT INTO sandboxes (id, namespace, status, template_id, template_name, template_digest, isolation,"
            " vcpu, memory_mb, disk_mb, pids, open_files, internet_access, created_at, host_id, lease_epoch)"
            " VALUES ('1763382095i648uu1o', 'default', 'running', '1', 'base', 'd', 'namespace', 1, 128, 256, 32, 100,"
            " 0, 1.0, 'local', 1)"
        )
        connection.exec_driver_sql(
            "INSERT INTO api_keys (id, name, namespace, digest, created_at)"
            " VALUES ('abcdefghijkl', 'old', 'default', x'00', 1.0)"
        )
    engine.dispose()
    async with Database.at_path(path) as database:
        row = await database.read(lambda unit: unit.sandboxes.get("1763382095i648uu1o"))
        key = await database.read(lambda unit: unit.keys.get("abcdefghijkl"))
    assert (row.name, row.client_lease) == (None, "")
    assert (key.scopes, key.prefix) == (ALL_SCOPES, "hopx_live_")
