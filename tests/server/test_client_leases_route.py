"""`POST /v1/client-leases`: the stream, and what its key sees of every route."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from tests.core.world import until
from tests.server.conftest import Plane, Running

from cove.models.client_leases import LEASE_EVENT, LEASE_PATH, LeaseAlive, LeaseOpened
from cove.models.scopes import NAMESPACE_HEADER
from cove.server.api import client_leases

pytestmark = pytest.mark.anyio

BASE = {"template_name": "base"}


@asynccontextmanager
async def leased(client: httpx2.AsyncClient, running: Running, plane: Plane) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client with the key of a lease; the lease ends with the block."""
    async with client.stream("POST", LEASE_PATH) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = answer.aiter_lines()  # dropping it would close the stream
        opened = LEASE_EVENT.validate_json(await anext(lines))
        assert isinstance(opened, LeaseOpened)
        yield running.client(plane.socket, {"X-API-Key": opened.api_key})


async def ids(client: httpx2.AsyncClient, **headers: str) -> set[str]:
    return {each["id"] for each in (await client.get("/v1/sandboxes", headers=headers)).json()["data"]}


async def made(client: httpx2.AsyncClient, **fields: Any) -> str:
    answer = await client.post("/v1/sandboxes", json={**BASE, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def test_sandboxes_end_with_the_stream(plane: Plane, running: Running) -> None:
    plain = await made(plane.client, name="one")
    async with leased(plane.client, running, plane) as holder:
        mine = await made(holder, name="one")
        assert await ids(holder) == {mine}
        assert await ids(plane.client) == {plain, mine}
        assert await ids(plane.stranger) == set()
        assert (await holder.get(f"/v1/sandboxes/{plain}")).status_code == 404
        assert (await holder.delete(f"/v1/sandboxes/{plain}")).status_code == 404
        assert (await holder.post(f"/v1/sandboxes/{plain}/token/refresh")).status_code == 404
    await until(lambda: plane.host.ids == {plain}, seconds=2.0)
    assert (await holder.get("/v1/sandboxes")).status_code == 401
    assert plane.control.engine.leases.count == 0


async def test_two_leases_of_one_key_do_not_see_each_other(plane: Plane, running: Running) -> None:
    async with leased(plane.client, running, plane) as one, leased(plane.client, running, plane) as two:
        first, second = await made(one, name="same"), await made(two, name="same")
        assert (await ids(one), await ids(two)) == ({first}, {second})
        for path in ("", "/pause", "/resume", "/stop", "/start", "/token/refresh"):
            answer = await one.request("POST" if path else "DELETE", f"/v1/sandboxes/{second}{path}")
            assert answer.json()["code"] == "SANDBOX_NOT_FOUND"
        conflict = await one.post("/v1/sandboxes", json={**BASE, "name": "same"})
        assert conflict.json()["details"]["sandbox_id"] == first


async def test_executions_of_other_leases_do_not_exist(running: Running) -> None:
    plane = await running.start(webhook_allow=["127.0.0.1"])
    async with leased(plane.client, running, plane) as one, leased(plane.client, running, plane) as two:
        answer = (await one.post("/v1/sandboxes", json=BASE)).json()
        submitted = await plane.nobody.post(
            f"/sandboxes/{answer['id']}/execute/async",
            json={"code": "1", "callback_url": "http://127.0.0.1:9/"},
            headers={"Authorization": f"Bearer {answer['auth_token']}"},
        )
        execution = submitted.json()["execution_id"]
        for client, status, count in ((one, 200, 1), (plane.client, 200, 1), (two, 404, 0), (plane.stranger, 404, 0)):
            assert (await client.get(f"/v1/executions/{execution}")).status_code == status
            assert len((await client.get("/v1/executions")).json()["data"]) == count
        assert (await two.post(f"/v1/executions/{execution}/redeliver")).status_code == 404


async def test_the_key_of_a_lease_enters_namespaces_as_its_own_does(running: Running) -> None:
    plane = await running.start(dev=True)
    async with leased(plane.nobody, running, plane) as holder:
        there = {NAMESPACE_HEADER: "team"}
        mine = (await holder.post("/v1/sandboxes", json=BASE, headers=there)).json()["id"]
        assert await ids(holder) == set()
        assert await ids(holder, **there) == await ids(holder, **{NAMESPACE_HEADER: "*"}) == {mine}
    await until(lambda: not plane.host.ids, seconds=2.0)
    assert (await holder.get("/v1/sandboxes")).status_code == 401  # not everybody's server for who had a lease


async def test_what_a_lease_may_not(plane: Plane, running: Running) -> None:
    async with leased(plane.client, running, plane) as holder:
        assert (await holder.post(LEASE_PATH)).json()["code"] == "FORBIDDEN"
        assert (await holder.post("/auth/api-keys", json={"name": "more"})).json()["code"] == "FORBIDDEN"
    assert (await plane.nobody.post(LEASE_PATH)).status_code == 401
    assert (await plane.client.get(LEASE_PATH)).status_code == 405


async def test_events_go_on_and_end_when_the_server_wants_to_end(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_leases, "ALIVE_SECONDS", 0.01)
    async with plane.client.stream("POST", LEASE_PATH) as answer:
        lines = answer.aiter_lines()
        seen = [LEASE_EVENT.validate_json(await anext(lines)) for _ in range(4)]
        assert [type(each) for each in seen] == [LeaseOpened, LeaseAlive, LeaseAlive, LeaseAlive]
        plane.control.engine.leases.close()
        async with asyncio.timeout(5):
            assert all([json.loads(line)["type"] == "alive" async for line in lines])


async def test_keys_of_leases_are_in_no_answer_and_no_store(plane: Plane, running: Running) -> None:
    async with leased(plane.client, running, plane) as holder:
        await made(holder)
        key = holder.headers["x-api-key"]
        assert re.fullmatch(r"cove_delegated_[0-9a-f]{24}\.[A-Za-z0-9_-]{43}", key)
        for path in ("/auth/api-keys", "/auth/me", "/v1/sandboxes"):
            assert key not in (await plane.client.get(path)).text
        secret = key.partition(".")[2].encode()
        assert not any(secret in file.read_bytes() for file in running.directory.glob("cove.db*"))
