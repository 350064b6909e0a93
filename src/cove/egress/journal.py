"""What a sandbox did on the network: totals, and the latest connections and look-ups."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from cove.models.network import EgressEntry, EgressTotals, NetworkReport

KEPT_ENTRIES: Final = 1000


class Journal:
    """Of one sandbox; bounded, the oldest entries go first and are counted."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: deque[EgressEntry] = deque(maxlen=KEPT_ENTRIES)
        self._sequence = 0
        self.sent_bytes = self.received_bytes = 0
        self.open_connections = self.connections = self.lookups = self.refused = 0

    def add(
        self,
        kind: str,
        place: str,
        *,
        port: int = 0,
        name: str = "",
        refusal: str | None = None,
        sent_bytes: int = 0,
        received_bytes: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Note something; `refusal` is why it was not allowed, or did not come about."""
        self._sequence += 1
        if refusal is not None:
            self.refused += 1
        self._entries.append(
            EgressEntry(
                sequence=self._sequence,
                time=self._clock(),
                kind=kind,
                name=name[:255],
                address=place[:64],
                port=port,
                allowed=refusal is None,
                reason=(refusal or "")[:300],
                sent_bytes=sent_bytes,
                received_bytes=received_bytes,
                seconds=round(seconds, 6),
            )
        )

    def report(self, *, after: int = 0) -> NetworkReport:
        """Totals, and the entries with a sequence number above `after`."""
        entries = tuple(entry for entry in self._entries if entry.sequence > after)
        return NetworkReport(
            totals=EgressTotals(
                sent_bytes=self.sent_bytes,
                received_bytes=self.received_bytes,
                open_connections=self.open_connections,
                connections=self.connections,
                lookups=self.lookups,
                refused=self.refused,
            ),
            entries=entries,
            forgotten=max(0, self._sequence - after - len(entries)),
        )
