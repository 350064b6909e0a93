"""The report as Markdown, JSON and a table on the terminal."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from benchmarks.outcome import Result, Unit
from benchmarks.samples import Distribution

_NUMBERS: Final = ("samples", "median", "p95", "p99", "bare", "ratio")
_COLUMNS: Final = ("what", *_NUMBERS, "target")
_ON_TERMINAL: Final = ("what", "median", "p99", "ratio", "target")
_PERCENTILES_FROM: Final = 10


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of one run.

    Attributes:
        machine: what was measured on.
        yardstick: milliseconds of the bare interpreter, over the whole run.
        results: the rows.
    """

    machine: dict[str, str]
    yardstick: Distribution
    results: tuple[Result, ...]


def to_markdown(report: Report) -> str:
    """A page for people."""
    facts = "\n".join(f"- {name}: {value}" for name, value in report.machine.items())
    lines = [_cells(_COLUMNS), _cells(["---:" if column in _NUMBERS else "---" for column in _COLUMNS])]
    lines += [
        _cells([*(_plain(cell) for cell in _figures(result)), "; ".join(_judgements(result, _bold))])
        for result in _with_yardstick(report)
    ]
    parts = [
        "# Benchmark",
        "Written by `make bench`. Ratios are multiples of the median of a bare `/usr/bin/python3 -c 'print(1)'`, "
        "samples of which are taken between the samples of each row (`bare`), so that noise hits both alike. Times are "
        "milliseconds on the wall clock, network on loopback; percentiles are nearest-rank, and shown from "
        f"{_PERCENTILES_FROM} samples on. MB is 10^6 bytes, kB 10^3.",
        "## Machine\n\n" + facts,
        "## Figures\n\n" + "\n".join(lines),
        *_notes(report),
        *(_breakdown(result) for result in report.results if result.breakdown),
    ]
    return "\n\n".join(parts) + "\n"


def to_json(report: Report) -> str:
    """The same for programs: every figure unrounded, ratios and verdicts included."""
    document: dict[str, Any] = {
        "machine": report.machine,
        "yardstick": asdict(report.yardstick),
        "results": [
            {
                **asdict(result),
                "ratio": result.ratio,
                "verdicts": [asdict(verdict) for verdict in result.verdicts],
                "breakdown": [{"step": step, "milliseconds": took} for step, took in result.breakdown],
            }
            for result in report.results
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def to_table(report: Report) -> Table:
    """The most important of it, for terminals of 80 columns."""
    table = Table(title="Benchmark", title_justify="left")
    shown = [_COLUMNS.index(column) for column in _ON_TERMINAL]
    for column in _ON_TERMINAL:
        if column in _NUMBERS:
            table.add_column(column, justify="right", no_wrap=True, min_width=5)
        else:
            table.add_column(column, overflow="fold", min_width=16)
    for result in _with_yardstick(report):
        cells = [*(escape(cell) for cell in _figures(result)), "\n".join(_judgements(result, _colored))]
        table.add_row(*(cells[index] for index in shown))
    return table


def _with_yardstick(report: Report) -> tuple[Result, ...]:
    bare = Result(what="yardstick: bare python3 -c 'print(1)'", samples=report.yardstick, yardstick=report.yardstick)
    return (bare, *report.results)


def _figures(result: Result) -> list[str]:
    if result.samples is None:
        return [f"{result.what}: {result.note}", *[""] * len(_NUMBERS)]
    unit, samples = result.unit, result.samples
    tails = samples.count >= _PERCENTILES_FROM
    return [
        result.what,
        str(samples.count),
        _figure(samples.median, unit),
        _figure(samples.p95, unit) if tails else "",
        _figure(samples.p99, unit) if tails else "",
        "" if result.yardstick is None else _figure(result.yardstick.median, Unit.MILLISECONDS),
        "" if result.ratio is None else f"{result.ratio:.2f}x",
    ]


def _judgements(result: Result, mark: Callable[[bool], str]) -> list[str]:
    return [f"{verdict.promise}: {mark(verdict.met)} ({_measured(verdict.measured)})" for verdict in result.verdicts]


def _figure(value: float, unit: Unit) -> str:
    return f"{value:.{0 if value >= 1000 else 1}f} {unit}" if value >= 10 else f"{value:.2f} {unit}"


def _measured(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _bold(met: bool) -> str:
    return "met" if met else "**not met**"


def _colored(met: bool) -> str:
    return "[green]met[/]" if met else "[red]not met[/]"


def _notes(report: Report) -> list[str]:
    notes = [f"- {_plain(result.what)}: {_plain(result.note)}" for result in report.results if _is_noted(result)]
    return ["## Notes\n\n" + "\n".join(notes)] if notes else []


def _is_noted(result: Result) -> bool:
    """Of what was not measured, the row itself says why."""
    return bool(result.note) and result.samples is not None


def _breakdown(result: Result) -> str:
    total = sum(took for _, took in result.breakdown)
    lines = [_cells(["step", "ms"]), _cells(["---", "---:"])]
    lines += [_cells([_plain(step), f"{took:.1f}"]) for step, took in (*result.breakdown, ("all", total))]
    return f"## Where the time goes: {_plain(result.what)}\n\nOne run.\n\n" + "\n".join(lines)


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(text: str) -> str:
    """Text of tools (an error message, say) must not end a table's cell or row."""
    return " ".join(text.replace("|", "\\|").split())
