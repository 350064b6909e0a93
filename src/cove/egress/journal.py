"""What a sandbox did on the network: totals, and the latest connections and look-ups."""

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from cove.models.network import EgressEntry, EgressTotals, NetworkReport, RefusalCause

KEPT_ENTRIES: Final = 1000


class Journal:
    """Of one sandbox; bounded, the oldest entries go first and are counted."""

    def __init__(
        self, *, note: Callable[[EgressEntry], None] | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`note` is told of each entry."""
        self._clock = clock
        self._note = note
        self._entries: deque[EgressEntry] = deque(maxlen=KEPT_ENTRIES)
        self._sequence = 0
        self._refusals: Counter[RefusalCause] = Counter()
        self.sent_bytes = self.received_bytes = 0
        self.sent_packets = self.received_packets = 0
        self.open_connections = self.connections = self.lookups = 0

    def add(
        self,
        kind: str,
        place: str,
        *,
        port: int = 0,
        name: str = "",
        refusal: str | None = None,
        cause: RefusalCause = RefusalCause.POLICY,
        sent_bytes: int = 0,
        received_bytes: int = 0,
        packets: tuple[int, int] = (0, 0),
        seconds: float = 0.0,
    ) -> None:
        """Note something; `refusal` is why it was not allowed, or did not come about.

        Args:
            packets: sent and received.
        """
        self._sequence += 1
        if refusal is not None:
            self._refusals[cause] += 1
        self.sent_packets += packets[0]
        self.received_packets += packets[1]
        entry = EgressEntry(
            sequence=self._sequence,
            time=self._clock(),
            kind=kind,
            name=name[:255],
            address=place[:64],
            port=port,
            allowed=refusal is None,
            reason=(refusal or "")[:300],
            cause=None if refusal is None else cause,
            sent_bytes=sent_bytes,
            received_bytes=received_bytes,
            sent_packets=packets[0],
            received_packets=packets[1],
            seconds=round(seconds, 6),
        )
        self._entries.append(entry)
        if self._note is not None:
            self._note(entry)

    def totals(self) -> EgressTotals:
        """Until now."""
        return EgressTotals(
            sent_bytes=self.sent_bytes,
            received_bytes=self.received_bytes,
            sent_packets=self.sent_packets,
            received_packets=self.received_packets,
            open_connections=self.open_connections,
            connections=self.connections,
            lookups=self.lookups,
            refused=self._refusals.total(),
            refusals=dict(self._refusals),
        )

    def report(self, *, after: int = 0) -> NetworkReport:
        """Totals, and the entries with a sequence number above `after`."""
        entries = tuple(entry for entry in self._entries if entry.sequence > after)
        forgotten = max(0, self._sequence - after - len(entries))
        return NetworkReport(totals=self.totals(), entries=entries, forgotten=forgotten)
