"""Token buckets."""

from tests.core.world import Clock

from cove.core.rates import RateLimiter


def test_a_burst_of_the_whole_limit_and_then_as_fast_as_it_fills() -> None:
    clock = Clock()
    limiter = RateLimiter(6, clock=clock)
    verdicts = [limiter.take("k") for _ in range(7)]
    assert [each.allowed for each in verdicts] == [True] * 6 + [False]
    assert [each.remaining for each in verdicts] == [5, 4, 3, 2, 1, 0, 0]
    assert (verdicts[0].full_in_seconds, verdicts[6].wait_seconds, verdicts[6].full_in_seconds) == (10, 10, 60)
    clock.now += 9
    assert not limiter.take("k").allowed
    clock.now += 1.001
    assert limiter.take("k").allowed
    clock.now += 3600
    assert limiter.take("k").remaining == 5


def test_keys_have_buckets_of_their_own() -> None:
    limiter = RateLimiter(1, clock=Clock())
    assert limiter.take("a").allowed
    assert not limiter.take("a").allowed
    assert limiter.take("b").allowed


def test_memory_is_bounded_and_the_longest_unused_goes_first() -> None:
    limiter = RateLimiter(1, most_buckets=2, clock=Clock())
    for key in ("a", "b", "a", "c"):
        limiter.take(key)
    assert not limiter.take("a").allowed
    assert limiter.take("b").allowed
    assert len(limiter._buckets) == 2  # pyright: ignore[reportPrivateUsage]


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    clock = Clock()
    limiter = RateLimiter(1, clock=clock)
    limiter.take("a")
    clock.now -= 100
    assert not limiter.take("a").allowed
