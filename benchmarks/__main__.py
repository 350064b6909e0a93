"""`python -m benchmarks`: measure, print the table, write it to benchmarks/results."""

import argparse
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Final, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import machine
from benchmarks.bench import Bench, Measure
from benchmarks.measurements import (
    burst,
    command_line,
    comparison,
    ending,
    file_transfer,
    first_output,
    gvisor,
    idle_memory,
    mcp_server,
    neighbours,
    networks,
    preview_throughput,
    round_trip,
    streams,
)
from benchmarks.outcome import Result
from benchmarks.report import Report, to_json, to_markdown, to_table
from benchmarks.samples import Distribution
from benchmarks.yardstick import Yardstick
from cove.host.templates.store import TemplateStore
from cove.models.errors import CoveError
from cove.server.settings import default_data_dir

_RESULTS: Final = Path(__file__).parent / "results"
_TEMPLATE: Final = "code-interpreter"
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_WARM_UP: Final = 5
_PIPE_WIDTH: Final = 150
_MEASUREMENTS: Final[Mapping[str, Measure]] = MappingProxyType(
    {
        "cold": first_output.measure_cold,
        "pooled": first_output.measure_pooled,
        "run": round_trip.measure,
        "burst": burst.measure,
        "files": file_transfer.measure,
        "streams": streams.measure,
        "preview": preview_throughput.measure,
        "mcp": mcp_server.measure,
        "memory": idle_memory.measure,
        "gvisor": gvisor.measure,
        "command": command_line.measure,
        "kill": ending.measure,
        "neighbours": neighbours.measure,
        "networks": networks.measure,
        "others": comparison.measure,
    }
)


def main() -> int:
    """Measure what the arguments ask for; 1 when something could not be measured at all."""
    arguments = _arguments()
    for number in _ENDING:
        signal.signal(number, _interrupt)
    # A pipe has no width of its own; the table is unreadable in the 80 columns that would be assumed.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    built = Path(os.environ.get("COVE_DATA_DIR") or default_data_dir())
    try:
        TemplateStore(built, owner=None).get(_TEMPLATE)
    except CoveError as problem:
        console.print(f"{problem} Run `make setup` first.", markup=False)
        return 1
    report = _measure(arguments, console, built)
    console.print(to_table(report))
    if arguments.name:
        _write(report, arguments.name)
        console.print(f"Written to {os.path.relpath(_RESULTS)}/{arguments.name}.md and .json.")
    return int(any(result.broken for result in report.results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="take a fifth of the samples")
    parser.add_argument("--only", action="append", choices=_MEASUREMENTS, help="measure this; may be repeated")
    parser.add_argument("--name", type=_file_name, help="of the files; a full run writes `latest`, others nothing")
    arguments = parser.parse_args()
    if arguments.name is None and not (arguments.quick or arguments.only):
        arguments.name = "latest"
    return arguments


def _file_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError("letters, digits, dots, dashes and underscores only")
    return text


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End what was started on the way out, and let no second signal disturb that; every wait there is bounded."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _measure(arguments: argparse.Namespace, console: Console, built: Path) -> Report:
    facts = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", **machine.facts()}
    if arguments.quick:
        facts["samples"] = "a fifth of those of a full run"
    yardstick = Yardstick()
    for _ in range(_WARM_UP):
        yardstick.sample()
    yardstick.samples.clear()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        bench = Bench(built=built, yardstick=yardstick, progress=progress, quick=arguments.quick)
        names = [name for name in _MEASUREMENTS if name in (arguments.only or _MEASUREMENTS)]
        results = tuple(_all(names, bench))
    bare = Distribution.of(yardstick.samples or [yardstick.sample()])
    return Report(machine=facts, yardstick=bare, results=results)


def _all(names: list[str], bench: Bench) -> Iterator[Result]:
    task = bench.progress.add_task("[bold]benchmark", total=len(names))
    for name in names:
        bench.progress.refresh()
        yield from _one(name, bench)
        bench.progress.advance(task)


def _one(name: str, bench: Bench) -> list[Result]:
    """A measurement that breaks off is a row that says so; the others go on."""
    try:
        return _MEASUREMENTS[name](bench)
    except Exception as problem:
        bench.progress.console.print("".join(traceback.format_exception(problem)), markup=False)
        return [Result(what=name, note=f"broke off: {type(problem).__name__}: {problem}"[:300], broken=True)]


def _write(report: Report, name: str) -> None:
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"{name}.md").write_text(to_markdown(report), encoding="utf-8")
    (_RESULTS / f"{name}.json").write_text(to_json(report), encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; everything that was started has been ended.\n")
        sys.exit(130)
