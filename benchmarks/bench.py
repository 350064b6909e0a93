"""What every measurement gets: the yardstick, how much to measure, a progress bar, servers."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.progress import Progress

from benchmarks.outcome import Result
from benchmarks.samples import Distribution
from benchmarks.serving import Server, data_directory, serving
from benchmarks.yardstick import Yardstick

_QUICK_PART: Final = 5
_DRAW_SECONDS: Final = 0.25


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One run.

    Attributes:
        built: the data directory that holds the built templates.
        progress: must not refresh by itself.
        quick: take a fifth of the samples.
    """

    built: Path
    yardstick: Yardstick
    progress: Progress
    quick: bool

    def count(self, samples: int) -> int:
        """How many of `samples` to take in this run; at least two."""
        return max(2, samples // _QUICK_PART) if self.quick else samples

    def rounds(self, what: str, samples: int) -> Iterator[int]:
        """0, 1, 2 ... for `samples` (or fewer, in a quick run), with a progress bar."""
        count = self.count(samples)
        task = self.progress.add_task(what, total=count)
        drawn = 0.0
        try:
            for number in range(count):
                # Drawn only here, between samples: a thread that draws would take its time from them.
                if time.monotonic() - drawn > _DRAW_SECONDS:
                    self.progress.refresh()
                    drawn = time.monotonic()
                yield number
                self.progress.advance(task)
        finally:
            self.progress.remove_task(task)

    def data_directory(self) -> AbstractContextManager[Path]:
        """A data directory of its own with the built templates, removed at the end."""
        return data_directory(self.built)

    def serving(
        self, *, pool_size: int, isolation: str = "namespace", variables: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Server]:
        """A fresh server on a data directory of its own."""
        return serving(self.built, pool_size=pool_size, isolation=isolation, variables=variables)


Measure = Callable[[Bench], list[Result]]


class Interleaved:
    """Samples, with samples of the yardstick between them, so that noise hits both alike."""

    def __init__(self, yardstick: Yardstick) -> None:
        self._yardstick = yardstick
        self._bare: list[float] = []
        self._series: dict[str, list[float]] = {}

    def compare(self) -> None:
        """Take a sample of the yardstick, here and now."""
        self._bare.append(self._yardstick.sample())

    def add(self, series: str, milliseconds: float) -> None:
        """Note a sample."""
        self._series.setdefault(series, []).append(milliseconds)

    def samples(self, series: str) -> Distribution:
        """The figures of one series."""
        return Distribution.of(self._series[series])

    @property
    def bare(self) -> Distribution:
        """The figures of the yardstick, as taken between these samples."""
        return Distribution.of(self._bare)
