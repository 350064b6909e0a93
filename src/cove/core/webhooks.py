"""One webhook: what is sent, how it is signed, and when it is tried again."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cove.models.async_executions import CallbackBody, ExecuteAsync
from cove.models.base import Contract
from cove.models.callbacks import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from cove.models.version import VERSION

PAUSES = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds after the first, second, ... attempt that failed; the last one repeats."""

_JITTER = 0.2
_GONE = 410
_OWN_HEADERS = frozenset({"content-type", "user-agent"})


class Callback(Contract):
    """Where a result goes, as it is sealed in the store."""

    url: str
    headers: dict[str, str] = {}
    secret: str | None = None

    @classmethod
    def of(cls, request: ExecuteAsync) -> "Callback":
        """What a request asked for."""
        return cls(
            url=request.callback_url,
            headers=request.callback_headers or {},
            secret=request.callback_signature_secret,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookMessage:
    """A POST request that is ready to be sent. `owner` is the tenant on whose behalf."""

    url: str
    owner: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class WebhookOutcome:
    """What came of an attempt.

    Attributes:
        status: HTTP status of the answer; None when there was none.
        failure: what went wrong, in words; None for a 2xx answer.
    """

    status: int | None
    failure: str | None

    @property
    def delivered(self) -> bool:
        """Whether the receiver has it."""
        return self.failure is None

    @property
    def final(self) -> bool:
        """Whether the receiver wants no further attempt (410 Gone, RFC 9110 §15.5.11)."""
        return self.delivered or self.status == _GONE


class WebhookSender(Protocol):
    """Sends one message, bounded in time; every failure is an outcome."""

    async def send(self, message: WebhookMessage) -> WebhookOutcome:
        """Try once."""
        ...


def compose(callback: Callback, result: CallbackBody, *, owner: str, attempt: int, now: float) -> WebhookMessage:
    """The message of one attempt. The delivery's id is the same in all attempts, so that a receiver can tell repeats;
    the timestamp is this attempt's, so that a receiver can refuse old ones."""
    body = result.model_copy(update={"attempt": attempt}).model_dump_json(exclude_none=True).encode()
    timestamp = str(int(now))
    headers = {name: value for name, value in callback.headers.items() if name.lower() not in _OWN_HEADERS}
    headers |= {
        "Content-Type": "application/json",
        "User-Agent": f"cove/{VERSION}",
        DELIVERY_HEADER: f"dlv_{result.execution_id.removeprefix('exec_')}",
        TIMESTAMP_HEADER: timestamp,
    }
    if callback.secret is not None:
        headers[SIGNATURE_HEADER] = sign(callback.secret, timestamp, body)
    return WebhookMessage(url=callback.url, owner=owner, headers=headers, body=body)


def pause_after(attempt: int) -> float:
    """Seconds until the next attempt, a little different each time so that receivers are not hit by all at once."""
    usual = PAUSES[min(attempt, len(PAUSES)) - 1]
    return usual * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 (not a secret)
