"""How often something may happen: a token bucket for each key, in bounded memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_SECONDS = 60.0
_MOST_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it may happen now, and how much is left.

    Attributes:
        limit: a minute.
        remaining: so many more at once.
        full_in_seconds: until everything is there again.
        wait_seconds: until it may happen; 0 when it may now.
    """

    limit: int
    remaining: int
    full_in_seconds: float
    wait_seconds: float

    @property
    def allowed(self) -> bool:
        """Whether it may happen now."""
        return self.wait_seconds <= 0


class RateLimiter:
    """So many a minute for each key; all of them may come at once. The key that was used longest ago is forgotten
    first, and starts with a full bucket then.
    """

    def __init__(
        self, per_minute: int, *, most_buckets: int = _MOST_BUCKETS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = per_minute
        self._most_buckets = most_buckets
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> Verdict:
        """Let it happen once, if it may."""
        now = self._clock()
        tokens, seen = self._buckets.get(key, (float(self._limit), now))
        tokens = min(self._limit, tokens + max(0.0, now - seen) * self._limit / _SECONDS)
        wait = 0.0 if tokens >= 1 else (1 - tokens) * _SECONDS / self._limit
        if not wait:
            tokens -= 1
        self._buckets[key] = tokens, now
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most_buckets:
            self._buckets.popitem(last=False)
        return Verdict(self._limit, int(tokens), (self._limit - tokens) * _SECONDS / self._limit, wait)
