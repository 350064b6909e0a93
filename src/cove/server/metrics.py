"""Figures for Prometheus, in a registry of this server's own."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cove.models.network import EgressTotals
from cove.models.sandboxes import SandboxStatus
from cove.server.egress_metrics import EgressFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What is counted. Labels take only values from small fixed sets, never from clients."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "cove_http_requests",
            "Requests to the control plane.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._creates = Counter("cove_sandbox_creates", "Creates.", ("outcome",), registry=self.registry)
        self._create_seconds = Histogram(
            "cove_sandbox_create_seconds",
            "From request to running sandbox.",
            ("source",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._sandboxes = Gauge("cove_sandboxes", "Sandboxes that exist.", ("status",), registry=self.registry)
        self._pool = Gauge("cove_pool_members", "Warm sandboxes that wait.", ("template",), registry=self.registry)

        self._webhooks = Counter(
            "cove_webhook_attempts", "Attempts to deliver a webhook.", ("outcome",), registry=self.registry
        )
        self._egress = EgressFigures(self.registry)

        self._audit_lost = Gauge(
            "cove_audit_entries_lost", "Entries of the audit log that were not written.", registry=self.registry
        )
        self._audit_file = Counter(
            "cove_audit_file_failures", "Failed attempts to write COVE_AUDIT_LOG.", registry=self.registry
        )

    def audit_file_failed(self) -> None:
        """Count a failed attempt to write the audit log's file."""
        self._audit_file.inc()

    def audit_lost(self, entries: int) -> None:
        """How many entries of the audit log were not written since the start."""
        self._audit_lost.set(entries)

    def request(self, method: str, route: str, status: int) -> None:
        """Count one answered request."""
        self._requests.labels(method, route, status).inc()

    def created(self, seconds: float, *, pooled: bool) -> None:
        """Count a create that went well."""
        source = "pool" if pooled else "template"
        self._creates.labels("created").inc()
        self._create_seconds.labels(source).observe(seconds)

    def webhook(self, outcome: str) -> None:
        """Count an attempt to deliver a webhook: `delivered`, `retried` or `undeliverable`."""
        self._webhooks.labels(outcome).inc()

    def refused(self, code: str) -> None:
        """Count a create that did not; `code` is one of the error table."""
        self._creates.labels(code).inc()

    def render(
        self, sandboxes: Mapping[SandboxStatus, int], pool: Mapping[str, int], egress: EgressTotals | None
    ) -> bytes:
        """Everything, in Prometheus' text format; `egress` is None when the host does not tell."""
        self._egress.totals = egress
        for status in SandboxStatus:
            if status is not SandboxStatus.DELETED:
                self._sandboxes.labels(status.value).set(sandboxes.get(status, 0))
        for template, size in pool.items():
            self._pool.labels(template).set(size)
        return generate_latest(self.registry)
