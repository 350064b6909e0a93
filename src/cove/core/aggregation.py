"""Like entries of the audit log: the first few one by one, the rest as one entry with their number.

So whoever does something thousands of times a second neither slows anybody down nor fills the log, and still nothing
goes uncounted.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from cove.models.stored import StoredEvent

HELD_SECONDS = 60.0
"""How long entries are counted together."""

MAX_ADDRESSES = 8
"""Addresses of clients that an entry for several requests names."""


@dataclass(slots=True)
class _Stream:
    """Attributes: allowance: entries that may be written by themselves. held: the first of those that are counted."""

    allowance: float
    looked_at: float
    held: StoredEvent | None = None
    held_since: float = 0.0
    count: int = 0
    size: int = 0
    addresses: set[str] = field(default_factory=set[str])


class Aggregation:
    """Streams of like entries, in bounded memory. When there are too many, the one of longest ago is closed.

    Args:
        most: streams at the same time.
        burst: entries of a stream that are written one by one at first.
        per_second: and how many later.
    """

    def __init__(self, *, most: int, burst: int, per_second: float) -> None:
        self._most = most
        self._burst = burst
        self._per_second = per_second
        self._streams: OrderedDict[Hashable, _Stream] = OrderedDict()
        self._closed: list[StoredEvent] = []

    def admits(self, key: Hashable) -> bool:
        """Whether there is room for an entry of this stream without closing another one."""
        return key in self._streams or len(self._streams) < self._most

    def take(self, key: Hashable, event: StoredEvent, size: int) -> StoredEvent | None:
        """The entry, if it is to be written by itself; else it is counted, and comes with `due`."""
        now = event.at
        stream = self._streams.get(key)
        if stream is None:
            stream = self._open(key, now)
        else:
            self._streams.move_to_end(key)
        if stream.held is None:
            earned = max(0.0, now - stream.looked_at) * self._per_second
            stream.allowance, stream.looked_at = min(self._burst, stream.allowance + earned), now
            if stream.allowance >= 1:
                stream.allowance -= 1
                return _one(event, size)
            stream.held, stream.held_since, stream.count, stream.size = event, now, 0, 0
            stream.addresses.clear()
        stream.count += 1
        stream.size += size
        if len(stream.addresses) < MAX_ADDRESSES:
            stream.addresses.add(event.address)
        return None

    def due(self, *, now: float, everything: bool = False) -> list[StoredEvent]:
        """What was counted together for long enough; streams in which nothing happens any more are forgotten."""
        found, self._closed = self._closed, []
        full_after = self._burst / self._per_second
        for key, stream in list(self._streams.items()):
            if stream.held is not None and (everything or now - stream.held_since >= HELD_SECONDS):
                found.append(_many(stream.held, stream))
                stream.held = None
            if stream.held is None and now - stream.looked_at >= full_after:
                del self._streams[key]
        return found

    def _open(self, key: Hashable, now: float) -> _Stream:
        if len(self._streams) >= self._most:
            _, oldest = self._streams.popitem(last=False)
            if oldest.held is not None:
                self._closed.append(_many(oldest.held, oldest))
        stream = self._streams[key] = _Stream(float(self._burst), now)
        return stream


def _one(event: StoredEvent, size: int) -> StoredEvent:
    return replace(event, details={**event.details, "bytes": size}) if size else event


def _many(first: StoredEvent, stream: _Stream) -> StoredEvent:
    details: dict[str, Any] = {**first.details, "count": stream.count}
    if stream.size:
        details["bytes"] = stream.size
    if len(stream.addresses) > 1:
        details["addresses"] = sorted(stream.addresses)
    return replace(first, details=details)
