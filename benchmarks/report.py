"""The report as Markdown, JSON and a table on the terminal."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from benchmarks.outcome import Result, Unit
from benchmarks.samples import Distribution

_COLUMNS: Final = ("what", "samples", "median", "p95", "p99", "ratio", "target", "verdict")
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
    lines = [_cells(_COLUMNS), _cells(["---", *["---:"] * 5, "---", "---"])]
    lines += [_cells([_plain(cell) for cell in row]) for row in _rows(report, mark=_plain_verdict)]
    parts = [
        "# Benchmark",
        "Written by `make bench`. Ratios are multiples of the median of a bare `/usr/bin/python3 -c 'print(1)'`, "
        "samples of which are taken between the samples of each row, so that noise hits both alike. Times are "
        "milliseconds on the wall clock, network on loopback; percentiles are nearest-rank, and shown from "
        f"{_PERCENTILES_FROM} samples on. MB is 10^6 bytes.",
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
    """The same for a terminal."""
    table = Table(title="Benchmark", title_justify="left")
    for column in _COLUMNS:
        numeric = column in _COLUMNS[1:6]
        table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric or column == "verdict")
    for what, *figures, verdict in _rows(report, mark=_colored_verdict):
        table.add_row(escape(what), *(escape(figure) for figure in figures), verdict)
    return table


def _rows(report: Report, *, mark: Callable[[str, bool], str]) -> list[list[str]]:
    bare = Result(what="yardstick: bare python3 -c 'print(1)'", samples=report.yardstick, yardstick=report.yardstick)
    return [_row(result, mark) for result in (bare, *report.results)]


def _row(result: Result, mark: Callable[[str, bool], str]) -> list[str]:
    verdicts = result.verdicts
    targets = ", ".join(verdict.promise for verdict in verdicts)
    marks = ", ".join(mark(_measured(verdict.measured), verdict.met) for verdict in verdicts)
    if result.samples is None:
        return [f"{result.what}: {result.note}", "", "", "", "", "", targets, marks]
    unit, samples = result.unit, result.samples
    tails = samples.count >= _PERCENTILES_FROM
    return [
        result.what,
        str(samples.count),
        _figure(samples.median, unit),
        _figure(samples.p95, unit) if tails else "",
        _figure(samples.p99, unit) if tails else "",
        "" if result.ratio is None else f"{result.ratio:.2f}x",
        targets,
        marks,
    ]


def _figure(value: float, unit: Unit) -> str:
    return f"{value:.{0 if value >= 1000 else 1}f} {unit}" if value >= 10 else f"{value:.2f} {unit}"


def _measured(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _plain_verdict(measured: str, met: bool) -> str:
    return f"met ({measured})" if met else f"**not met** ({measured})"


def _colored_verdict(measured: str, met: bool) -> str:
    return f"[green]met[/] ({measured})" if met else f"[red]not met[/] ({measured})"


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
