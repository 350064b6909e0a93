"""Counting of requests, for `/metrics`."""

from collections.abc import Set as AbstractSet

OTHER = "other"


class Traffic:
    """How many requests there were, by path.

    Only paths that exist are counted by name: a client must not be able to grow the table.
    """

    def __init__(self, paths: AbstractSet[str]) -> None:
        self._paths = paths
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self.active = 0
        self.total = 0
        self.errors = 0

    def begin(self) -> None:
        """A request came in."""
        self.active += 1
        self.total += 1

    def end(self, path: str, status: int, seconds: float) -> None:
        """A request was answered with `status`."""
        self.active -= 1
        if status >= 400:
            self.errors += 1
        name = path if path in self._paths else OTHER
        self._counts[name] = self._counts.get(name, 0) + 1
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def counts(self) -> dict[str, int]:
        """Path -> answered requests, for paths that were asked for."""
        return dict(self._counts)

    def average_ms(self) -> dict[str, float]:
        """Path -> mean time to the end of the answer, in milliseconds."""
        return {path: round(1000 * self._seconds[path] / count, 3) for path, count in self._counts.items()}
