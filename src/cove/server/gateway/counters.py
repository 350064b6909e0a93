"""What the gateway has done, for metrics."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class GatewayCounters:
    """Totals since the start, and two gauges.

    Attributes:
        connections_open: client connections now.
        websockets_open: of these, upgraded ones.
        connections: client connections accepted.
        requests: request heads read.
        to_control_plane: requests routed there.
        to_agents: requests routed to sandboxes' agents.
        to_ports: requests routed to programs in sandboxes.
        refusals: error code to the number of answers that the gateway gave itself.
        upstream_failures: upstreams that could not be reached, or broke off.
        upstream_violations: answers that were not exactly one well-formed response.
        bytes_from_clients: request bytes.
        bytes_to_clients: response bytes.
    """

    connections_open: int = 0
    websockets_open: int = 0
    connections: int = 0
    requests: int = 0
    to_control_plane: int = 0
    to_agents: int = 0
    to_ports: int = 0
    refusals: dict[str, int] = field(default_factory=dict[str, int])
    upstream_failures: int = 0
    upstream_violations: int = 0
    bytes_from_clients: int = 0
    bytes_to_clients: int = 0

    def refused(self, code: str) -> None:
        """Counts one refusal."""
        self.refusals[code] = self.refusals.get(code, 0) + 1
