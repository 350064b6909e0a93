"""Which names led a sandbox to which addresses: what our resolver has answered it."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from cove.models.addresses import IpAddress

REMEMBERED_SECONDS: Final = 3600.0
"""Programs keep addresses for longer than their time to live, and connect again."""
_MOST_ADDRESSES: Final = 4096
_MOST_NAMES: Final = 16
"""Of one address: many sites may share it."""


class NamesSeen:
    """Of one sandbox; bounded, the oldest is forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._names: OrderedDict[IpAddress, OrderedDict[str, float]] = OrderedDict()

    def remember(self, name: str, addresses: Iterable[IpAddress]) -> None:
        """`name` was answered with `addresses`."""
        now = self._clock()
        for address in addresses:
            names = self._names.setdefault(address, OrderedDict())
            names[name] = now
            names.move_to_end(name)
            self._names.move_to_end(address)
            if len(names) > _MOST_NAMES:
                names.popitem(last=False)
        while len(self._names) > _MOST_ADDRESSES:
            self._names.popitem(last=False)

    def of(self, address: IpAddress) -> tuple[str, ...]:
        """The names that led to `address`, the latest first."""
        since = self._clock() - REMEMBERED_SECONDS
        names = self._names.get(address)
        return tuple(name for name, seen in reversed(names.items()) if seen >= since) if names else ()
