"""Figures about executions, for metrics."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ExecutionCounters:
    """How much was executed since the start.

    Attributes:
        active: programs that run now.
        total: programs that were started, the active ones included.
        errors: those that ended with another exit code than 0, or not as a program at all.
        average_ms: language (or `command`) -> mean duration in milliseconds.
    """

    active: int = 0
    total: int = 0
    errors: int = 0
    average_ms: dict[str, float] = field(default_factory=dict[str, float])


class Tally:
    """Counts executions."""

    def __init__(self) -> None:
        self._active = 0
        self._total = 0
        self._errors = 0
        self._durations: dict[str, tuple[int, float]] = {}

    @contextmanager
    def running(self, language: str) -> Generator[Callable[[int], None]]:
        """Count one execution; call what is yielded with its exit code."""
        codes: list[int] = []
        self._active += 1
        self._total += 1
        began = time.monotonic()
        try:
            yield codes.append
        finally:
            self._active -= 1
            self._errors += codes != [0]
            count, seconds = self._durations.get(language, (0, 0.0))
            self._durations[language] = (count + 1, seconds + time.monotonic() - began)

    def counters(self) -> ExecutionCounters:
        """The figures now."""
        averages = {name: 1000 * seconds / count for name, (count, seconds) in self._durations.items()}
        return ExecutionCounters(self._active, self._total, self._errors, averages)
