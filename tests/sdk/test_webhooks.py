"""What a receiver of webhooks may believe."""

import json
import time

import pytest

from cove.models.callbacks import sign
from cove.models.errors import AuthenticationFailed, InvalidRequest, PlatformFailure
from cove.sdk import webhooks

SECRET = "whsec"
BODY = json.dumps(
    {
        "execution_id": "exec_1",
        "sandbox_id": "1763382095abcdefgh",
        "status": "completed",
        "success": True,
        "stdout": "é",
        "stderr": "",
        "exit_code": 0,
        "execution_time": 1.5,
        "timestamp": "2026-01-01T00:00:00Z",
        "language": "python",
        "later": "kept",
    }
).encode()


def _headers(body: bytes = BODY, *, secret: str = SECRET, age: float = 0) -> dict[str, str]:
    moment = str(int(time.time() - age))
    return {
        "x-hopx-timestamp": moment,
        "X-HOPX-SIGNATURE": sign(secret, moment, body),
        "Content-Type": "application/json",
    }


def test_a_right_signature() -> None:
    delivery = webhooks.verify(BODY, _headers(), SECRET)
    assert (delivery.execution_id, delivery.status, delivery.stdout, delivery.attempt) == (
        "exec_1",
        "completed",
        "é",
        1,
    )
    assert delivery.model_dump()["later"] == "kept"
    assert webhooks.verify(bytearray(BODY), _headers(age=100), SECRET).success


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY, {}),
        (BODY, _headers() | {"X-HOPX-SIGNATURE": ""}),
        (BODY, _headers() | {"X-HOPX-SIGNATURE": "sha256=" + "0" * 64}),
        (BODY, _headers() | {"X-HOPX-SIGNATURE": "\udcff"}),
        (BODY, _headers(secret="other")),
        (BODY + b" ", _headers()),
        (BODY, _headers() | {"x-hopx-timestamp": "1"}),
        (BODY, _headers() | {"x-hopx-timestamp": "²"}),
        (BODY, _headers() | {"x-hopx-timestamp": "-1"}),
        (BODY, _headers(age=301)),
        (BODY, _headers(age=-3000)),
    ],
)
def test_a_wrong_one(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(AuthenticationFailed):
        webhooks.verify(body, headers, SECRET)


def test_the_tolerance_can_be_chosen() -> None:
    assert webhooks.verify(BODY, _headers(age=1000), SECRET, tolerance_seconds=2000)
    with pytest.raises(AuthenticationFailed, match="ago"):
        webhooks.verify(BODY, _headers(age=100), SECRET, 50)


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        webhooks.verify(BODY, _headers(secret=""), "")


def test_a_signed_body_that_is_no_delivery() -> None:
    with pytest.raises(PlatformFailure):
        webhooks.verify(b"[]", _headers(b"[]"), SECRET)
