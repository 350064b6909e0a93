"""Figures of sandboxes' networks for Prometheus, as their host counts them."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cove.models.network import EgressTotals, RefusalCause

_BYTES: Final = "Bytes that connections of sandboxes carried, by what the sandbox did with them."
_PACKETS: Final = "TCP segments of ended connections of sandboxes, by what the sandbox did with them."


class EgressFigures(Collector):
    """Of all sandboxes together: no label has a value that a client chooses.

    Attributes:
        totals: to be shown next; None: nothing is.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.totals: EgressTotals | None = None
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What there is now."""
        totals = self.totals
        if totals is None:
            return
        yield CounterMetricFamily(
            "cove_egress_connections", "Connections of sandboxes to the outside.", value=totals.connections
        )
        yield CounterMetricFamily("cove_egress_lookups", "Names that sandboxes looked up.", value=totals.lookups)
        yield GaugeMetricFamily("cove_egress_open_connections", "Those that are open.", value=totals.open_connections)
        refusals = CounterMetricFamily(
            "cove_egress_refusals", "Connections and look-ups that did not come about.", labels=("cause",)
        )
        for cause in RefusalCause:
            refusals.add_metric((cause.value,), totals.refusals.get(cause, 0))
        yield refusals
        yield _each_way("cove_egress_bytes", _BYTES, totals.sent_bytes, totals.received_bytes)
        yield _each_way("cove_egress_packets", _PACKETS, totals.sent_packets, totals.received_packets)


def _each_way(name: str, text: str, sent: int, received: int) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=("direction",))
    family.add_metric(("sent",), sent)
    family.add_metric(("received",), received)
    return family
