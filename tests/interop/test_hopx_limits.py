"""Quotas and rate limits, as the unmodified client sees them; and that its own repetitions make no second sandbox."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.e2e.running_server import RunningServer, data_directory, run_cove, running_server
from tests.interop import hopx

Sandbox, errors = hopx.client.Sandbox, hopx.errors


class Limited(NamedTuple):
    """A server that lets a key send twelve creates a minute, and a key of a namespace that may have two sandboxes."""

    server: RunningServer
    there: dict[str, Any]


@pytest.fixture(scope="module")
def limited(built_data_dir: Path) -> Iterator[Limited]:
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, COVE_CREATE_RATE="12") as running:
        yield Limited(running, {"base_url": running.url, "api_key": key_of(running, "two")})


def key_of(server: RunningServer, namespace: str) -> str:
    key = server.new_key(namespace, "--namespace", namespace)
    done = run_cove("namespaces", "limits", namespace, "--max-sandboxes", "2", "--data-dir", str(server.data_dir))
    assert done.returncode == 0, done.stderr
    return key


def test_a_quota_is_a_resource_limit_error(limited: Limited) -> None:
    made = [Sandbox.create("base", timeout_seconds=120, **limited.there) for _ in range(2)]
    try:
        with pytest.raises(errors.ResourceLimitError) as raised:
            Sandbox.create("base", **limited.there)
        assert (raised.value.limit, raised.value.current, raised.value.available) == (2, 2, 0)
        assert raised.value.code == "RESOURCE_LIMIT_EXCEEDED"
        assert raised.value.request_id
    finally:
        for each in made:
            each.kill()
    Sandbox.create("base", timeout_seconds=120, **limited.there).kill()


@pytest.mark.anyio
async def test_the_same_for_the_asynchronous_client(limited: Limited) -> None:
    client = hopx.client.AsyncSandbox
    made = [await client.create("base", timeout_seconds=120, **limited.there) for _ in range(2)]
    try:
        with pytest.raises(errors.ResourceLimitError) as raised:
            await client.create("base", **limited.there)
        assert (raised.value.limit, raised.value.available) == (2, 0)
    finally:
        for each in made:
            await each.kill()


def test_a_client_that_is_told_to_wait_waits_and_gets_one_sandbox(limited: Limited) -> None:
    there = {**limited.there, "api_key": key_of(limited.server, "busy")}
    impatient = hopx.http.HTTPClient(max_retries=0, **there)
    with pytest.raises(errors.RateLimitError) as raised:
        while True:
            with suppress(errors.ValidationError):
                impatient.post("/v1/sandboxes", json={})
    assert raised.value.code == "RATE_LIMIT_EXCEEDED"
    assert 1 <= raised.value.retry_after <= 5
    made = Sandbox.create("base", timeout_seconds=120, **there)
    try:
        assert [each.sandbox_id for each in Sandbox.list(**there)] == [made.sandbox_id]
    finally:
        made.kill()
