"""When a request may be sent again. Never when that could run somebody's code twice."""

import math
from enum import Enum
from typing import Any

from cove.models.errors import CoveError, definition_of

ATTEMPTS = 4
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 2.0


class Retry(Enum):
    """What may be repeated, from least to most."""

    UNLESS_SENT = "unless sent"
    """Only when no byte can have left: for everything that runs code or changes a sandbox."""

    UNLESS_ACCEPTED = "unless accepted"
    """Also when the server said that it did nothing and that a later try may succeed: for creation."""

    IDEMPOTENT = "idempotent"
    """Also when the connection was lost: for requests whose repetition changes nothing."""


class Reach(Enum):
    """How far a failed request got. The transport's own knowledge: nothing that a server says can change it."""

    NOT_SENT = "not sent"
    SENT = "sent"
    ANSWERED = "answered"


def delay_before_retry(failure: CoveError, *, policy: Retry, reach: Reach, attempt: int) -> float | None:
    """Seconds to wait before attempt number `attempt + 1`; None means: give up and raise `failure`."""
    if attempt >= ATTEMPTS or not _may_repeat(failure, policy, reach):
        return None
    backoff = min(_FIRST_DELAY * 3 ** (attempt - 1), _LONGEST_DELAY)
    return min(max(backoff, _asked_for(failure)), _LONGEST_DELAY)


def _may_repeat(failure: CoveError, policy: Retry, reach: Reach) -> bool:
    if reach is Reach.ANSWERED:
        return _answer_invites(failure, policy)
    if failure.code == "TIMEOUT":
        # A silent server has used up the caller's time already; more of it would not be bounded.
        return False
    return reach is Reach.NOT_SENT or policy is Retry.IDEMPOTENT


def _answer_invites(failure: CoveError, policy: Retry) -> bool:
    if policy is Retry.UNLESS_SENT or not definition_of(failure.code).retryable:
        return False
    return policy is Retry.IDEMPOTENT or failure.code not in ("AGENT_UNREACHABLE", "TIMEOUT")


def _asked_for(failure: CoveError) -> float:
    seconds: Any = failure.details.get("retry_after_seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return 0.0
    return max(0.0, float(seconds))
