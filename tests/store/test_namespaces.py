"""Namespaces get numbers that never change, also those of a store that an earlier version wrote."""

import asyncio
from pathlib import Path

import pytest
from alembic import command

from cove.core.keys import ApiKeys
from cove.core.namespaces import Namespaces
from cove.models.errors import CoveError
from cove.models.quotas import UNLIMITED, Quota
from cove.store.database import Database
from cove.store.engine import WRITES, open_engine, sqlite_url
from cove.store.migrate import alembic_config

pytestmark = pytest.mark.anyio

SANDBOX = (
    "INSERT INTO sandboxes (id, namespace, status, template_id, template_name, template_digest, isolation, vcpu,"
    " memory_mb, disk_mb, pids, open_files, internet_access, created_at, host_id, lease_epoch)"
    " VALUES ('1763382095aaaaaaaa', 'blue', 'running', '1', 'base', 'd', 'namespace',"
    " 1, 64, 64, 16, 64, 0, 5.0, 'h', 1)"
)
KEY = "INSERT INTO api_keys (id, name, namespace, digest, created_at) VALUES ('aaaaaaaaaaaa', 'k', 'red', x'00', 7.0)"


def old_store(path: Path) -> None:
    """A store as it was before there were numbers, with a key and a sandbox in it."""
    engine = open_engine(sqlite_url(path))
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.exec_driver_sql(SANDBOX)
        connection.exec_driver_sql(KEY)
    engine.dispose()


async def test_an_older_store_gets_its_numbers(tmp_path: Path) -> None:
    old_store(tmp_path / "cove.db")
    async with Database.at_path(tmp_path / "cove.db") as store:
        numbers = {each.name: each.id for each in await Namespaces(store).list()}
        assert numbers == {"default": 1, "blue": 2, "red": 3}
        row = (await store.read(lambda work: work.sandboxes.live()))[0]
        assert (row.organization_id, row.created_by) == (2, "")
        assert (await ApiKeys(store).list())[0].quota == UNLIMITED


async def test_a_number_is_given_once_also_by_several_processes(tmp_path: Path) -> None:
    async with Database.at_path(tmp_path / "cove.db") as first, Database.at_path(tmp_path / "cove.db") as second:
        stores = [first, second] * 5
        made = await asyncio.gather(
            *(each.write(lambda work: work.namespaces.ensure("new", at=1.0)) for each in stores)
        )
        assert {each.id for each in made} == {2}
        names = [f"n{number}" for number in range(4)]
        for name in names:
            await ApiKeys(first).create("k", namespace=name)
        assert [each.name for each in await Namespaces(second).list()] == ["default", "new", *names]


async def test_quotas_are_kept(tmp_path: Path) -> None:
    async with Database.at_path(tmp_path / "cove.db") as store:
        namespaces, keys = Namespaces(store), ApiKeys(store)
        quota = Quota(max_sandboxes=0, max_total_vcpu=7)
        made = await keys.create("k", namespace="red", quota=quota)
        await namespaces.set_quota("red", Quota(max_disk_mb=64))
        keys.distrust()
        principal = await keys.verify(made.key)
        assert (principal.key_quota, principal.namespace_quota) == (quota, Quota(max_disk_mb=64))
        assert principal.organization_id == (await namespaces.get("red")).id
        await namespaces.set_quota("red", UNLIMITED)
        assert (await namespaces.get("red")).quota == UNLIMITED
        with pytest.raises(CoveError) as caught:
            await namespaces.set_quota("blue", quota)
        assert caught.value.code == "RESOURCE_NOT_FOUND"


async def test_keys_that_are_over_are_dropped_after_a_while(tmp_path: Path) -> None:
    async with Database.at_path(tmp_path / "cove.db") as store:
        keys = ApiKeys(store, clock=lambda: 1000.0)
        revoked, expiring, good = [
            (await keys.create(name, lifetime_seconds=seconds)).stored
            for name, seconds in (("a", None), ("b", 10.0), ("c", None))
        ]
        await keys.revoke(revoked.id)
        assert await store.write(lambda work: work.keys.prune(over_before=1000.0)) == 0
        assert await store.write(lambda work: work.keys.prune(over_before=1000.5)) == 1
        assert await store.write(lambda work: work.keys.prune(over_before=1010.5)) == 1
        assert [each.id for each in await keys.list()] == [good.id]
        assert expiring.id != good.id
