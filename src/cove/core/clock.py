"""Time, as core asks for it: unix seconds. Tests pass a clock of their own."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]


def utc(seconds: float) -> datetime:
    """Unix seconds as an aware UTC time."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def rfc3339(seconds: float) -> str:
    """Unix seconds as people read them: RFC 3339, UTC, whole seconds."""
    return utc(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
