"""Results of measurements, and whether they are what was promised."""

from dataclasses import dataclass
from enum import StrEnum

from benchmarks.samples import Distribution, Figure


class Unit(StrEnum):
    """What samples are counted in. MB is 10^6 bytes, kB 10^3."""

    MILLISECONDS = "ms"
    KILOBYTES = "kB"
    MEGABYTES = "MB"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A promise: `figure` is at most `at_most`.

    Attributes:
        relative: `at_most` is a multiple of the yardstick's median; else it has the samples' unit.
    """

    figure: Figure
    at_most: float
    relative: bool = True


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one target.

    Attributes:
        promise: the target in words.
        measured: what it was compared with; None when nothing could be measured.
    """

    promise: str
    measured: float | None
    met: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the report.

    Attributes:
        samples: None when it could not be measured; `note` then says why.
        yardstick: milliseconds of the bare interpreter, taken between these very samples.
        breakdown: steps of one run and the milliseconds that each took.
        broken: it should have been measured, and broke off.
    """

    what: str
    unit: Unit = Unit.MILLISECONDS
    samples: Distribution | None = None
    yardstick: Distribution | None = None
    targets: tuple[Target, ...] = ()
    note: str = ""
    breakdown: tuple[tuple[str, float], ...] = ()
    broken: bool = False

    @property
    def ratio(self) -> float | None:
        """The median as a multiple of the yardstick's; None where that says nothing."""
        if self.samples is None or self.yardstick is None or self.unit is not Unit.MILLISECONDS:
            return None
        return self.samples.median / self.yardstick.median

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each target. What could not be measured is not met."""
        return tuple(self._judge(target) for target in self.targets)

    def _judge(self, target: Target) -> Verdict:
        measured = self._measured(target)
        met = measured is not None and measured <= target.at_most
        return Verdict(promise=_in_words(target, self.unit), measured=measured, met=met)

    def _measured(self, target: Target) -> float | None:
        if self.samples is None:
            return None
        value = self.samples.figure(target.figure)
        if not target.relative:
            return value
        return None if self.yardstick is None else value / self.yardstick.median


def _in_words(target: Target, unit: Unit) -> str:
    bound = f"{target.at_most:g}x" if target.relative else f"{target.at_most:g} {unit}"
    return f"{target.figure} <= {bound}"
