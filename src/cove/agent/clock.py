"""The one format of points in time on the agent's wire."""

from datetime import UTC, datetime


def timestamp() -> str:
    """Now, as RFC 3339 in UTC with exactly six fractional digits: `2026-01-31T12:00:00.000000Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
