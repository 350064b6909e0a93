"""The main job: an assistant's programs, in four languages, on a real table, in isolated sandboxes.

    make demo

Starts a server of its own on a free port, runs everything through the public SDK, and ends it again.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cove import Sandbox
from cove.sdk import Execution
from cove.server.settings import default_data_dir

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "demo-output"
READY_SECONDS = 60

PANDAS = """
import pandas as pd
sales = pd.read_csv("sales.csv", parse_dates=["date"])
sales["revenue"] = sales.units * sales.unit_price
by_region = sales.pivot_table(index="region", columns="product", values="revenue", aggfunc="sum").round(0)
print(f"{len(sales)} sales from {sales.date.min():%d %b} to {sales.date.max():%d %b %Y}")
by_region
"""

PLOT = """
import matplotlib.pyplot as plt
weekly = sales.set_index("date").groupby("region").revenue.resample("W").sum().unstack(0)
axes = weekly.rolling(3, min_periods=1).mean().plot(figsize=(9, 4.5), linewidth=2, title="Revenue a week, by region")
axes.set_xlabel(""); axes.set_ylabel("revenue"); axes.grid(alpha=0.3)
plt.tight_layout()
"""

JAVASCRIPT = """
function fibonacci(n) {
  let [a, b] = [0n, 1n];
  for (let i = 0n; i < n; i++) [a, b] = [b, a + b];
  return a;
}
console.log([10n, 50n, 100n, 200n].map(n => `fib(${n}) = ${fibonacci(n)}`).join("\\n"));
"""

BASH = """
echo "units sold by product:"
tail -n +2 sales.csv |
  awk -F, '{ units[$3] += $4 } END { for (p in units) printf "%6d  %s\\n", units[p], p }' |
  sort -rn
"""

GO = """
package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"strconv"
)

func main() {
	file, _ := os.Open("/workspace/sales.csv")
	rows, _ := csv.NewReader(file).ReadAll()
	best, when := 0, ""
	for _, row := range rows[1:] {
		if units, _ := strconv.Atoi(row[3]); units > best {
			best, when = units, row[0]+" "+row[1]+" "+row[2]
		}
	}
	fmt.Printf("the best single sale: %d units on %s\\n", best, when)
}
"""


def main() -> None:
    """Run the demonstration."""
    console = Console(highlight=False)
    OUTPUT.mkdir(exist_ok=True)
    timings = Table("step", "milliseconds", title="Timings", title_justify="left")

    def timed(step: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = action()
        timings.add_row(step, f"{1000 * (time.perf_counter() - started):.1f}")
        return result

    with server(console) as url:
        sandbox = timed("create a sandbox (the first: imports pandas ahead)", lambda: Sandbox.create(base_url=url))
        with sandbox:
            info = sandbox.get_info()
            console.print(
                f"\nSandbox [bold]{info.id}[/bold], isolation [bold]{info.isolation}[/bold]: {info.isolation_summary}"
            )
            sandbox.files.upload(HERE / "sales.csv", "/workspace/sales.csv")

            def run(title: str, language: str, code: str) -> Execution:
                result = timed(title, lambda: sandbox.run_code(code, language=language))
                console.rule(f"[bold]{title}")
                console.print(result.stdout.rstrip(), markup=False)
                if result.exit_code != 0:
                    sys.exit(f"{title} failed: {result.stderr}")
                return result

            run("Python: pandas on the uploaded table", "python", PANDAS)
            plot = run("Python: a plot, from the same variables", "python", PLOT)
            plot.save_png(OUTPUT / "revenue.png")
            console.print(f"saved {os.path.relpath(OUTPUT / 'revenue.png')}")
            run("JavaScript: Fibonacci", "javascript", JAVASCRIPT)
            run("Bash: a pipeline over the table", "bash", BASH)
            run("Go: compiled and run", "go", GO)
        with timed("create a second sandbox (now warm)", lambda: Sandbox.create(base_url=url)) as second:
            timed("its first Python output", lambda: second.run_code("print(6 * 7)"))
            timed("its second", lambda: second.run_code("print(6 * 7)"))
    console.print()
    console.print(timings)
    console.print("Both sandboxes and the server are gone; nothing is left running.")


@contextmanager
def server(console: Console) -> Generator[str]:
    """A server of its own, with the machine's templates; yields its address."""
    templates = Path(os.environ.get("COVE_DATA_DIR") or default_data_dir())
    data_dir = Path(tempfile.mkdtemp(prefix="cove-demo-"))
    for name in ("templates", "layers"):
        (data_dir / name).symlink_to(templates / name)
    command = [sys.executable, "-m", "cove.cli.main", "serve", "--dev", "--port", "0", "--pool-size", "1"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(data_dir), "--log-format", "json"], stderr=subprocess.PIPE, text=True
    )
    try:
        with console.status("starting the server"):
            yield_url = _address(process)
        yield yield_url
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=READY_SECONDS)
        shutil.rmtree(data_dir)


def _address(process: subprocess.Popen[str]) -> str:
    """Read the log until the server says where it listens."""
    lines: list[str] = []
    assert process.stderr
    for line in process.stderr:
        lines.append(line)
        found = re.search(r"Cove serves (http://\S+?),", line)
        if found:
            return found[1]
    sys.exit("The server did not start:\n" + "".join(lines))


if __name__ == "__main__":
    main()
