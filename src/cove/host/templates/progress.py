"""Progress of a build as one fraction that never goes back."""

from collections.abc import Callable

from cove.host.templates.layers import StepReporter
from cove.models.templates import BuildProgress


class ProgressScale:
    """Maps the progress of weighted steps, done one after the other, to a fraction of the whole."""

    def __init__(self, total: float, on_progress: Callable[[BuildProgress], None]) -> None:
        self._total = max(total, 1e-9)
        self._on_progress = on_progress
        self._done = 0.0
        self._highest = 0.0

    def step(self, weight: float) -> StepReporter:
        """A reporter for the next step of `weight`; the steps before it count as done."""
        start, self._done = self._done, self._done + weight

        def report(step: str, fraction: float) -> None:
            self._say(step, (start + weight * min(max(fraction, 0.0), 1.0)) / self._total)

        return report

    def finish(self, step: str) -> None:
        """Report 1.0."""
        self._say(step, 1.0)

    def _say(self, step: str, fraction: float) -> None:
        self._highest = max(self._highest, min(fraction, 1.0))
        self._on_progress(BuildProgress(step=step, fraction=round(self._highest, 4)))
