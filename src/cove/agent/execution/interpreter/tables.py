"""Tables as data."""

import json
from typing import Any

MAX_ROWS = 1000
MAX_COLUMNS = 100
MAX_TABLE_BYTES = 4 * 1024 * 1024


def frame_data(frame: Any) -> dict[str, Any]:
    """A pandas DataFrame as `{columns, index, data, dtypes, shape, truncated}`, bounded in cells and bytes."""
    rows, columns = min(len(frame), MAX_ROWS), min(len(frame.columns), MAX_COLUMNS)
    part = frame.iloc[:rows, :columns]
    text = _split_json(part)
    while len(text) > MAX_TABLE_BYTES and rows > 0:
        rows //= 2
        text = _split_json(part.iloc[:rows])
    data: dict[str, Any] = (
        json.loads(text) if len(text) <= MAX_TABLE_BYTES else {"columns": [], "index": [], "data": []}
    )
    data["dtypes"] = [str(dtype) for dtype in part.dtypes]
    data["shape"] = list(frame.shape)
    data["truncated"] = rows < len(frame) or columns < len(frame.columns)
    return data


def series_data(series: Any) -> dict[str, Any]:
    """A pandas Series as a table of one column; `shape` has one number."""
    data = frame_data(_as_frame(series))
    data["shape"] = list(series.shape)
    return data


def series_html(series: Any) -> str:
    """A pandas Series as HTML, in the form of a DataFrame."""
    return str(_as_frame(series)._repr_html_() or "")


def _as_frame(series: Any) -> Any:
    return series.to_frame(name=series.name if series.name is not None else "value")


def _split_json(frame: Any) -> str:
    try:
        return str(frame.to_json(orient="split", date_format="iso", default_handler=str))
    except (ValueError, TypeError, OverflowError):
        # Cells that no JSON stands for, or labels that occur twice.
        return str(frame.astype(str).to_json(orient="split"))
