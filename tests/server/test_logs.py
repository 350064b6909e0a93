"""Logs: one JSON object a line, with ids, without secrets."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog
from tests.server.conftest import Running

from cove.server.logs import configure_logging
from cove.server.settings import Settings

KEY = "hopx_live_abcdefghijkl.AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_abcde"
TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJhdWQiOiJjb3ZlIn0.c2lnbmF0dXJl"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    out = io.StringIO()
    yield out
    structlog.reset_defaults()


def test_secrets_are_masked_wherever_they_appear(stream: io.StringIO) -> None:
    configure_logging(Settings(), stream=stream)
    log = structlog.get_logger("test")
    log.info(f"got {KEY}", authorization="Bearer x", api_key="y", note=f"token {TOKEN}!", X_API_Key="z", n=5)
    try:
        int(f"with {KEY}")
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert KEY not in text
    assert TOKEN not in text
    first, second = [json.loads(line) for line in text.splitlines()]
    assert (first["event"], first["authorization"], first["api_key"], first["n"]) == ("got ***", "***", "***", 5)
    assert "ValueError" in second["exception"]


def test_people_get_lines_for_people(stream: io.StringIO) -> None:
    configure_logging(Settings(dev=True), stream=stream)
    structlog.get_logger("test").info("hello", a=1)
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


@pytest.mark.anyio
async def test_requests_leave_one_line_with_their_id(stream: io.StringIO, running: Running) -> None:
    configure_logging(Settings(), stream=stream)
    plane = await running.start()
    made = (await plane.client.post("/v1/sandboxes", json={"template_name": "base", "env_vars": {"S": "hush"}})).json()
    await plane.client.delete(f"/v1/sandboxes/{made['id']}", headers={"X-Request-ID": "mine"})
    await plane.client.get("/evil%0d%0a%7b%22x%22", headers={"X-Request-ID": "other"})
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    requests = {line["request_id"]: line for line in lines if line["event"] == "request"}
    assert (requests["mine"]["status"], requests["mine"]["sandbox_id"]) == (200, made["id"])
    assert requests["mine"]["namespace"] == "default"
    assert requests["other"]["path"] == "/evil%0d%0a%7b%22x%22"
    assert next(line for line in lines if line["event"] == "sandbox_created")["request_id"] == made["request_id"]
    text = stream.getvalue()
    for secret in ("hush", made["auth_token"], plane.client.headers["X-API-Key"]):
        assert secret not in text
