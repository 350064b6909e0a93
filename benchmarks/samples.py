"""What is kept of many samples."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


def percentile(values: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `fraction` of all do not exceed.

    Raises:
        ValueError: no values, or a fraction outside (0, 1].
    """
    if not values or not 0 < fraction <= 1:
        raise ValueError(f"no percentile {fraction} of {len(values)} values")
    # Without the rounding 0.07 * 100 would be a rank above 7.
    return sorted(values)[math.ceil(round(fraction * len(values), 9)) - 1]


class Figure(StrEnum):
    """A figure of a distribution that something can be promised about."""

    MEDIAN = "median"
    P95 = "p95"
    P99 = "p99"
    WORST = "worst"


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Figures of a set of samples, in the samples' unit."""

    count: int
    median: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The figures of `values`.

        Raises:
            ValueError: there are none.
        """
        return cls(
            count=len(values),
            median=statistics.median(values) if values else math.nan,
            p95=percentile(values, 0.95),
            p99=percentile(values, 0.99),
            worst=max(values),
        )

    def figure(self, figure: Figure) -> float:
        """The one that is named."""
        figures = {
            Figure.MEDIAN: self.median,
            Figure.P95: self.p95,
            Figure.P99: self.p99,
            Figure.WORST: self.worst,
        }
        return figures[figure]
