import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cove.models.errors import ERRORS, error
from cove.sdk._retry import ATTEMPTS, Reach, Retry, delay_before_retry

codes = st.sampled_from(sorted(ERRORS))
details: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "sent": st.booleans(),
        "retry_after_seconds": st.floats() | st.integers() | st.text() | st.booleans() | st.none(),
    },
)


@given(codes, details, st.sampled_from([Reach.SENT, Reach.ANSWERED]), st.integers(1, 10))
def test_what_may_run_code_is_repeated_only_when_nothing_was_sent(
    code: str, facts: dict[str, Any], reach: Reach, attempt: int
) -> None:
    failure = error(code, "m", **facts)
    assert delay_before_retry(failure, policy=Retry.UNLESS_SENT, reach=reach, attempt=attempt) is None


@given(codes, details, st.sampled_from(Retry), st.sampled_from(Reach), st.integers(1, 10))
def test_attempts_and_delays_are_bounded(
    code: str, facts: dict[str, Any], policy: Retry, reach: Reach, attempt: int
) -> None:
    delay = delay_before_retry(error(code, "m", **facts), policy=policy, reach=reach, attempt=attempt)
    if attempt >= ATTEMPTS:
        assert delay is None
    assert delay is None or (math.isfinite(delay) and 0 < delay <= 2)


@pytest.mark.parametrize("policy", list(Retry))
def test_a_refused_connection_is_tried_again(policy: Retry) -> None:
    failure = error("NETWORK_ERROR", "refused")
    assert delay_before_retry(failure, policy=policy, reach=Reach.NOT_SENT, attempt=1) is not None


@pytest.mark.parametrize(
    ("code", "policy", "repeated"),
    [
        ("HOST_UNAVAILABLE", Retry.UNLESS_ACCEPTED, True),
        ("CAPACITY_EXHAUSTED", Retry.UNLESS_ACCEPTED, True),
        ("RATE_LIMIT_EXCEEDED", Retry.UNLESS_ACCEPTED, True),
        ("AGENT_UNREACHABLE", Retry.UNLESS_ACCEPTED, False),
        ("TIMEOUT", Retry.UNLESS_ACCEPTED, False),
        ("AGENT_UNREACHABLE", Retry.IDEMPOTENT, True),
        ("INTERNAL_ERROR", Retry.IDEMPOTENT, False),
        ("SANDBOX_NOT_FOUND", Retry.IDEMPOTENT, False),
    ],
)
def test_an_answer_is_repeated_when_its_code_says_so(code: str, policy: Retry, *, repeated: bool) -> None:
    delay = delay_before_retry(error(code, "m"), policy=policy, reach=Reach.ANSWERED, attempt=1)
    assert (delay is not None) is repeated


def test_a_server_s_wish_for_a_longer_pause_is_followed_within_bounds() -> None:
    def after(seconds: object) -> float | None:
        failure = error("RATE_LIMIT_EXCEEDED", "m", retry_after_seconds=seconds)
        return delay_before_retry(failure, policy=Retry.IDEMPOTENT, reach=Reach.ANSWERED, attempt=1)

    assert after(1.5) == 1.5
    assert after(3600) == 2
    assert after(math.nan) == after(None) == after("x") == after(-1) == after(0)
