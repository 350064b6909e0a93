"""API keys: the whole life of one, and what is no key."""

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.core.world import Clock

from cove.core.keys import ApiKeys
from cove.core.principal import Principal
from cove.models.errors import CoveError
from cove.models.scopes import ALL_SCOPES, Scope
from cove.store.database import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.at_path(tmp_path / "cove.db") as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(database: Database, clock: Clock) -> ApiKeys:
    return ApiKeys(database, clock=clock)


async def refused(keys: ApiKeys, key: str) -> str:
    with pytest.raises(CoveError) as caught:
        await keys.verify(key)
    assert caught.value.code == "AUTHENTICATION_REQUIRED"
    assert len(key) < 20 or key not in str(caught.value)
    return caught.value.message


async def test_a_key_has_the_shape_that_clients_check_and_opens_its_namespace(keys: ApiKeys) -> None:
    made = await keys.create("laptop", namespace="team-a")
    assert re.fullmatch(r"hopx_live_[A-Za-z0-9]{12}\.[A-Za-z0-9_-]+", made.key)
    assert await keys.verify(made.key) == Principal("team-a", made.stored.id)
    assert await keys.verify(made.key) == Principal("team-a", made.stored.id)


async def test_keys_are_stored_nowhere(keys: ApiKeys, database: Database, tmp_path: Path) -> None:
    made = await keys.create("laptop")
    await keys.verify(made.key)
    await database.close()
    secret = made.key.partition(".")[2]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert made.stored.id.encode() in stored
    assert secret.encode() not in stored


async def test_what_is_no_key_is_refused(keys: ApiKeys) -> None:
    made = await keys.create("laptop")
    head, _, secret = made.key.partition(".")
    other = await keys.create("other")
    for key in (
        "",
        " ",
        "x",
        head,
        made.key[:-1],
        made.key + "A",
        made.key + "\n",
        f"{head}.{'A' * 43}",
        f"{other.key.partition('.')[0]}.{secret}",
        made.key.swapcase(),
        "hopx_live_" + "ü" * 12 + "." + secret,
        "A" * 100_000,
    ):
        await refused(keys, key)
    await keys.verify(made.key)


async def test_a_revoked_key_says_so_at_once_and_in_other_processes_soon(keys: ApiKeys, database: Database) -> None:
    made = await keys.create("laptop")
    other_process = ApiKeys(database)
    await other_process.verify(made.key)
    await keys.verify(made.key)
    await keys.revoke(made.stored.id)
    assert "revoked at" in await refused(keys, made.key)
    started = time.monotonic()
    while True:
        try:
            await other_process.verify(made.key)
        except CoveError:
            break
        assert time.monotonic() - started < 2.0


async def test_keys_expire(keys: ApiKeys, clock: Clock) -> None:
    made = await keys.create("laptop", lifetime_seconds=60)
    await keys.verify(made.key)
    clock.now += 60
    assert "expired at" in await refused(keys, made.key)


async def test_keys_are_revoked_by_name_when_only_one_has_it(keys: ApiKeys) -> None:
    first = await keys.create("laptop")
    await keys.create("laptop")
    with pytest.raises(CoveError) as caught:
        await keys.revoke("laptop")
    assert caught.value.code == "CONFLICT"
    await keys.revoke(first.stored.id)
    await keys.revoke("laptop")
    with pytest.raises(CoveError) as caught:
        await keys.revoke("laptop")
    assert caught.value.code == "RESOURCE_NOT_FOUND"
    assert all(key.revoked_at for key in await keys.list())


async def test_uses_are_noted_now_and_then(keys: ApiKeys, clock: Clock) -> None:
    made = await keys.create("laptop")
    used = clock.now
    for _ in range(10):
        await keys.verify(made.key)
    clock.now += 30
    await keys.verify(made.key)
    await keys.flush()
    assert [key.last_used_at for key in await keys.list()] == [used]
    clock.now += 30
    await keys.verify(made.key)
    await keys.flush()
    assert [key.last_used_at for key in await keys.list()] == [clock.now]


@pytest.mark.parametrize(
    ("name", "namespace", "lifetime"),
    [
        ("", "default", None),
        ("a\nb", "default", None),
        ("x" * 201, "default", None),
        ("n", "de fault", None),
        ("n", "", None),
        ("n", "-a", None),
        ("n", "a" * 64, None),
        ("n", "default", 0),
        ("n", "default", -1),
        ("n", "default", float("nan")),
        ("n", "default", float("inf")),
    ],
)
async def test_bad_names_are_refused(keys: ApiKeys, name: str, namespace: str, lifetime: float | None) -> None:
    with pytest.raises(CoveError) as caught:
        await keys.create(name, namespace=namespace, lifetime_seconds=lifetime)
    assert caught.value.code == "INVALID_REQUEST"
    assert await keys.list() == ()


async def test_a_key_for_all_namespaces(keys: ApiKeys) -> None:
    made = await keys.create("ops", namespace="*")
    principal = await keys.verify(made.key)
    assert (principal.namespace, principal.organization_id, principal.enters_any_namespace) == ("default", 1, True)
    assert not (await keys.verify((await keys.create("other")).key)).enters_any_namespace


async def test_scopes_are_kept(keys: ApiKeys) -> None:
    made = await keys.create("reader", scopes=frozenset({Scope.READ}))
    assert (await keys.verify(made.key)).scopes == {Scope.READ}
    assert [key.scopes for key in await keys.list()] == [frozenset({Scope.READ})]
    assert (await keys.verify((await keys.create("all")).key)).scopes == ALL_SCOPES
    with pytest.raises(CoveError):
        await keys.create("nothing", scopes=frozenset())


async def test_a_key_for_clients_of_microsandbox(keys: ApiKeys) -> None:
    made = await keys.create("old client", prefix="msb_")
    assert re.fullmatch(r"msb_[A-Za-z0-9]{12}\.[A-Za-z0-9_-]{43}", made.key)
    assert (await keys.verify(made.key)).actor == made.stored.id
    assert await refused(keys, made.key.replace("msb_", "hopx_live_")) == "The API key is not known here."
    assert [key.prefix for key in await keys.list()] == ["msb_"]
