"""Rate limits of keys, and failures to authenticate."""

import asyncio
import time

import httpx2
import pytest
from tests.server.conftest import Plane, Running

from cove.server.api.failed_attempts import FAILURES_PER_MINUTE
from cove.server.settings import Settings

pytestmark = pytest.mark.anyio

CODE = {"template_name": "code-interpreter"}


async def test_requests_are_counted_for_each_key(running: Running) -> None:
    plane = await running.start(request_rate=3)
    answers = [await plane.client.get("/v1/sandboxes") for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429]
    assert [each.headers["X-RateLimit-Remaining"] for each in answers] == ["2", "1", "0", "0"]
    assert {each.headers["X-RateLimit-Limit"] for each in answers} == {"3"}
    resets = [int(each.headers["X-RateLimit-Reset"]) - time.time() for each in answers]
    assert all(0 < reset <= 62 for reset in resets)
    body = answers[3].json()
    assert body["code"] == body["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    wait = body["retry_after"]
    assert isinstance(wait, int)
    assert 1 <= wait <= 20
    assert wait == body["error"]["details"]["retry_after_seconds"] == int(answers[3].headers["Retry-After"])
    assert answers[3].headers["X-Request-ID"] == body["request_id"]
    assert (await plane.stranger.get("/v1/sandboxes")).status_code == 200
    assert (await plane.nobody.get("/health")).status_code == 200


async def test_creates_have_a_limit_of_their_own(running: Running) -> None:
    plane = await running.start(create_rate=2)
    answers = await asyncio.gather(*(plane.client.post("/v1/sandboxes", json=CODE) for _ in range(5)))
    assert sorted(each.status_code for each in answers) == [201, 201, 429, 429, 429]
    assert len(plane.host.ids) == 2
    refused = next(each for each in answers if each.status_code == 429)
    assert "2 creates a minute" in refused.json()["message"]
    listed = await plane.client.get("/v1/sandboxes")
    assert listed.status_code == 200
    assert "X-RateLimit-Limit" not in listed.headers


async def test_on_loopback_nothing_is_limited_unless_asked_for(plane: Plane) -> None:
    assert "X-RateLimit-Limit" not in (await plane.client.get("/v1/sandboxes")).headers


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({}, (0, 0)),
        ({"host": "0.0.0.0"}, (6000, 1200)),
        ({"public_url": "https://example.com"}, (6000, 1200)),
        ({"host": "0.0.0.0", "request_rate": 0, "create_rate": 7}, (0, 7)),
        ({"request_rate": 5}, (5, 0)),
    ],
)
def test_rates_by_address(fields: dict[str, object], rates: tuple[int, int]) -> None:
    settings = Settings.model_validate(fields)
    assert (settings.requests_per_minute, settings.creates_per_minute) == rates


async def test_too_many_failures_of_one_address_are_told_to_wait(plane: Plane) -> None:
    here, there = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    wrong = {"X-API-Key": "hopx_live_000000000000." + "x" * 43}
    answers: list[httpx2.Response] = []
    for number in range(FAILURES_PER_MINUTE + 5):
        if number % 3 == 0:
            body = {"code": "nonsense"}
            answers.append(await plane.nobody.post("/auth/workos-callback", json=body, headers=here))
        else:
            answers.append(await plane.nobody.get("/v1/sandboxes", headers=here | wrong))
    assert {each.status_code for each in answers[:FAILURES_PER_MINUTE]} == {401}
    last = answers[-1]
    assert (last.status_code, last.json()["code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert (last.json()["retry_after"], last.headers["Retry-After"]) == (1, "1")
    assert (await plane.nobody.get("/v1/sandboxes", headers=there | wrong)).status_code == 401
    assert (await plane.client.get("/v1/sandboxes", headers=here)).status_code == 200
    session = await plane.nobody.post(
        "/auth/workos-callback", json={"code": plane.client.headers["X-API-Key"]}, headers=here
    )
    assert session.status_code == 200


async def test_addresses_of_one_ipv6_customer_count_together(plane: Plane) -> None:
    wrong = {"X-API-Key": "nonsense"}
    answers = [
        await plane.nobody.get("/v1/sandboxes", headers={**wrong, "X-Forwarded-For": f"2001:db8::{number:x}"})
        for number in range(FAILURES_PER_MINUTE + 2)
    ]
    assert [each.status_code for each in answers[-2:]] == [429, 429]
    elsewhere = {**wrong, "X-Forwarded-For": "2001:db8:0:1::1"}
    assert (await plane.nobody.get("/v1/sandboxes", headers=elsewhere)).status_code == 401
