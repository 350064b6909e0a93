"""The benchmark's statistics, verdicts and tables; the figures themselves are no test's business."""

import io
import json
from collections.abc import Sequence

import pytest
from benchmarks.outcome import Result, Target, Unit
from benchmarks.report import Report, to_json, to_markdown, to_table
from benchmarks.samples import Distribution, Figure, percentile
from rich.console import Console

_ONE_TO_HUNDRED = [float(number) for number in range(1, 101)]


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        (_ONE_TO_HUNDRED, 0.95, 95.0),
        (_ONE_TO_HUNDRED, 0.99, 99.0),
        (_ONE_TO_HUNDRED, 0.07, 7.0),
        (_ONE_TO_HUNDRED, 1.0, 100.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0], 0.99, 4.0),
    ],
)
def test_percentile_is_the_nearest_rank(values: Sequence[float], fraction: float, expected: float) -> None:
    assert percentile(values, fraction) == expected


@pytest.mark.parametrize(("values", "fraction"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.01)])
def test_percentile_of_nothing_is_refused(values: Sequence[float], fraction: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, fraction)


def test_distribution_does_not_depend_on_order() -> None:
    figures = Distribution.of([5.0, 1.0, 4.0, 2.0])
    assert figures == Distribution(count=4, median=3.0, p95=5.0, p99=5.0, worst=5.0)
    assert figures == Distribution.of([1.0, 2.0, 4.0, 5.0])


def test_distribution_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 values"):
        Distribution.of([])


def test_ratio_is_of_medians() -> None:
    assert _result([10.0, 30.0, 20.0], bare=[9.0, 10.0, 50.0]).ratio == 2.0
    assert _result([1.0], bare=None).ratio is None


def test_memory_has_no_ratio() -> None:
    assert _result([1.0], bare=[1.0], unit=Unit.MEGABYTES).ratio is None


@pytest.mark.parametrize(("at_most", "met"), [(1.99, False), (2.0, True), (2.01, True)])
def test_target_relative_to_the_yardstick(at_most: float, met: bool) -> None:
    target = Target(figure=Figure.MEDIAN, at_most=at_most)
    (verdict,) = _result([20.0], bare=[10.0], targets=(target,)).verdicts
    assert (verdict.met, verdict.measured) == (met, 2.0)
    assert verdict.promise == f"median <= {at_most:g}x"


def test_p99_is_compared_with_the_median_of_the_yardstick() -> None:
    target = Target(figure=Figure.P99, at_most=5)
    (verdict,) = _result(_ONE_TO_HUNDRED, bare=[1.0, 10.0, 100.0], targets=(target,)).verdicts
    assert verdict.measured == pytest.approx(9.9)
    assert not verdict.met


def test_absolute_target_has_the_unit_of_the_samples() -> None:
    target = Target(figure=Figure.WORST, at_most=8, relative=False)
    (verdict,) = _result([7.0, 9.0], bare=None, unit=Unit.MEGABYTES, targets=(target,)).verdicts
    assert (verdict.promise, verdict.measured, verdict.met) == ("worst <= 8 MB", 9.0, False)


@pytest.mark.parametrize("relative", [True, False])
def test_what_was_not_measured_is_not_met(relative: bool) -> None:
    target = Target(figure=Figure.MEDIAN, at_most=1e9, relative=relative)
    (verdict,) = Result(what="nothing", targets=(target,)).verdicts
    assert (verdict.measured, verdict.met) == (None, False)


def test_relative_target_without_yardstick_is_not_met() -> None:
    (verdict,) = _result([1.0], bare=None, targets=(Target(figure=Figure.MEDIAN, at_most=9),)).verdicts
    assert (verdict.measured, verdict.met) == (None, False)


def test_markdown_has_a_row_for_each_result() -> None:
    lines = to_markdown(_report()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[:6] == [
        "| what | samples | median | p95 | p99 | bare | ratio | target |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        "| yardstick: bare python3 -c 'print(1)' | 2 | 10.0 ms |  |  | 10.0 ms | 1.00x |  |",
        "| quick | 100 | 50.5 ms | 95.0 ms | 99.0 ms | 10.0 ms | 5.05x "
        "| median <= 2x: **not met** (5.05); p99 <= 10x: met (9.9) |",
        "| few | 2 | 1500 ms |  |  | 10.0 ms | 150.00x |  |",
        "| absent: not installed |  |  |  |  |  |  |  |",
    ]
    assert "- cores: 2" in lines
    assert "- quick: worth \\| saying" in lines
    assert "| all | 4.0 |" in lines


def test_markdown_stays_a_table_whatever_an_error_says() -> None:
    broken = Result(what="tool", note="line one\nline | two", broken=True)
    page = to_markdown(Report(machine={}, yardstick=Distribution.of([1.0]), results=(broken,)))
    assert "| tool: line one line \\| two |  |  |  |  |  |  |  |" in page.splitlines()


def test_json_has_every_figure_and_verdict() -> None:
    document = json.loads(to_json(_report()))
    assert document["machine"] == {"cores": "2"}
    assert document["yardstick"]["median"] == 10.0
    quick, few, absent = document["results"]
    assert quick["samples"]["p99"] == 99.0
    assert quick["ratio"] == 5.05
    assert [verdict["met"] for verdict in quick["verdicts"]] == [False, True]
    assert few["breakdown"] == [{"step": "start", "milliseconds": 1.5}, {"step": "end", "milliseconds": 2.5}]
    assert (absent["samples"], absent["note"]) == (None, "not installed")


@pytest.mark.parametrize("width", [80, 150])
def test_terminal_table_shows_figures_whole(width: int) -> None:
    terminal = Console(file=io.StringIO(), width=width)
    terminal.print(to_table(_report()))
    output = terminal.file
    assert isinstance(output, io.StringIO)
    text = output.getvalue()
    assert "50.5 ms" in text
    assert "5.05x" in text
    assert "not met" in text
    assert max(len(line) for line in text.splitlines()) <= width


def _report() -> Report:
    targets = (Target(figure=Figure.MEDIAN, at_most=2), Target(figure=Figure.P99, at_most=10))
    bare = Distribution.of([10.0, 10.0])
    return Report(
        machine={"cores": "2"},
        yardstick=bare,
        results=(
            Result(
                what="quick",
                samples=Distribution.of(_ONE_TO_HUNDRED),
                yardstick=bare,
                targets=targets,
                note="worth | saying",
            ),
            Result(
                what="few",
                samples=Distribution.of([1000.0, 2000.0]),
                yardstick=bare,
                breakdown=(("start", 1.5), ("end", 2.5)),
            ),
            Result(what="absent", note="not installed"),
        ),
    )


def _result(
    values: Sequence[float],
    *,
    bare: Sequence[float] | None,
    unit: Unit = Unit.MILLISECONDS,
    targets: tuple[Target, ...] = (),
) -> Result:
    yardstick = None if bare is None else Distribution.of(bare)
    return Result(what="x", unit=unit, samples=Distribution.of(values), yardstick=yardstick, targets=targets)
