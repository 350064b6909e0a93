"""Fill the tables of figures in README.md and SPECIFICATION.md from benchmarks/results/latest.json.

    python docs/figures.py

The figures in those documents come from a run of `make bench` and from nowhere else.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results" / "latest.json"

SPEED: Final[Mapping[str, str]] = {
    "create -> first Python output, from the warm pool, SDK": "create and first Python output, from the warm pool",
    "create -> first Python output, cold from template, SDK": "the same without a pool",
    "run_code('print(1)') in a running sandbox, SDK": "`run_code` in a running sandbox",
    "kill: DELETE -> answered and all processes gone, SDK": "kill, until all processes are gone",
    "1 MB file uploaded": "1 MB into a sandbox, as a file",
    "1 MB file downloaded": "the same out of it",
    "100 concurrent creates, wall, SDK": "100 creates at once, all of them",
    "idle sandbox, created without a pool, nothing executed": "memory of an idle sandbox, without a pool",
    "idle sandbox from the warm pool, nothing executed": "memory of an idle sandbox from the pool",
    "cove run 'print(1)', everything cold, the whole command": "`cove run 'print(1)'`, nothing warm",
    "bwrap --ro-bind / / --unshare-all ... print(1)": "for comparison: `bwrap`, Python from the host",
}
"""Rows of README.md: name in the results -> words for the reader."""

_BLOCK: Final = "<!-- figures: {name} -->\n{content}<!-- end of figures -->"
_NO_RUN: Final = "No run of `make bench` is in `benchmarks/results` yet.\n"


def main() -> None:
    """Rewrite both documents."""
    report = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else None
    fill(ROOT / "README.md", "speed", speed_table(report) if report else _NO_RUN)
    fill(ROOT / "SPECIFICATION.md", "promises", promise_table(report) if report else _NO_RUN)


def fill(document: Path, name: str, content: str) -> None:
    """Replace what is between the marks of block `name`."""
    text = document.read_text(encoding="utf-8")
    pattern = re.escape(_BLOCK.format(name=name, content="@")).replace("@", "(?:.*?)")
    block = _BLOCK.format(name=name, content=f"\n{content}\n")
    filled, count = re.subn(pattern, lambda _: block, text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{document.name} has {count} blocks named {name!r}, not one")
    document.write_text(filled, encoding="utf-8")


def speed_table(report: Mapping[str, Any]) -> str:
    """For README.md."""
    results = {result["what"]: result for result in report["results"]}
    rows = [_speed_row(words, results[what]) for what, words in SPEED.items() if _measured(results.get(what))]
    yardstick = f"| bare interpreter | {report['yardstick']['median']:.3g} ms | 1x |"
    return "\n".join([_origin(report), "", "| what | median | ratio |", "|---|---:|---:|", yardstick, *rows, ""])


def promise_table(report: Mapping[str, Any]) -> str:
    """For SPECIFICATION.md: every row of the benchmark that has a target."""
    rows = [
        f"| {result['what']} | {verdict['promise']} | {_value(verdict, target, result['unit'])} | {_mark(verdict)} |"
        for result in report["results"]
        for verdict, target in zip(result["verdicts"], result["targets"], strict=True)
    ]
    head = ["| benchmark row | target | measured | state |", "|---|---|---:|---|"]
    return "\n".join([_origin(report), "", *head, *rows, ""])


def _origin(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    return (
        f"Measured on {machine['date']}: {machine['processor']}, {machine['cores']} cores, {machine['kernel']}, "
        f"{machine['distribution']}, load average at start {machine['load average at start']}."
    )


def _speed_row(words: str, result: Mapping[str, Any]) -> str:
    median, ratio = result["samples"]["median"], result["ratio"]
    return f"| {words} | {_number(median)} {result['unit']} | {f'{ratio:.2f}x' if ratio else ''} |"


def _value(verdict: Mapping[str, Any], target: Mapping[str, Any], unit: str) -> str:
    measured = verdict["measured"]
    if measured is None:
        return "not measured"
    return f"{measured:.2f}x" if target["relative"] else f"{_number(measured)} {unit}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _mark(verdict: Mapping[str, Any]) -> str:
    return "met" if verdict["met"] else "**not met**"


def _measured(result: Mapping[str, Any] | None) -> bool:
    samples: Sequence[Any] | None = result["samples"] if result else None
    return bool(samples)


if __name__ == "__main__":
    main()
