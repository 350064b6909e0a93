"""A report from an uploaded table: a figure and a spreadsheet come back as local files.

cove serve --dev        # in another terminal
python examples/report.py [DIRECTORY FOR THE RESULTS]
"""

import sys
from pathlib import Path

from cove import Sandbox

SALES = Path(__file__).parent / "sales.csv"

ANALYSIS = """
import pandas as pd
sales = pd.read_csv("sales.csv", parse_dates=["date"])
sales["revenue"] = sales.units * sales.unit_price
monthly = sales.groupby([sales.date.dt.strftime("%Y-%m"), "region"]).revenue.sum().unstack().round(2)
monthly.to_excel("monthly.xlsx")
monthly
"""

FIGURE = """
axes = monthly.plot.bar(figsize=(8, 4), title="Revenue by month and region")
axes.set_xlabel("")
axes.figure.tight_layout()
"""


def main() -> None:
    """Analyse the table inside, keep the results outside."""
    results = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    with Sandbox.create(timeout_seconds=120) as sandbox:
        sandbox.files.upload(SALES, "/workspace/sales.csv")
        table = sandbox.run_code(ANALYSIS)
        if not table.success or table.dataframe is None:
            sys.exit(table.stderr)
        print(table.stdout)
        print(f"{table.dataframe['shape'][0]} months, {table.dataframe['shape'][1]} regions")
        print("saved", sandbox.run_code(FIGURE).save_png(results / "monthly.png").name)
        print("saved", sandbox.files.download("/workspace/monthly.xlsx", results / "monthly.xlsx").name)


if __name__ == "__main__":
    main()
