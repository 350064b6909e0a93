"""What a call displays: rich objects, bounded, on their way to the agent."""

import base64
import re
from collections.abc import Callable
from typing import Any

from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

from cove.agent.execution.frames import MAX_RICH_BYTES, MAX_RICH_OUTPUTS, TABLE_TYPE, encode_frame
from cove.agent.execution.interpreter.figures import FigureDisplay
from cove.agent.execution.interpreter.tables import frame_data, series_data, series_html

_PLACEHOLDER = re.compile(r"<(?:IPython\.core\.display\.\w+ object|Figure size [^>]*)>")
_PANDAS_MODULES = {"DataFrame": ("pandas", "pandas.core.frame"), "Series": ("pandas", "pandas.core.series")}


class TableFormatter(BaseFormatter):
    """Tables as data, beside their HTML."""

    format_type = Unicode(TABLE_TYPE)
    print_method = ObjectName("_repr_dataframe_json_")
    _return_type = dict


class RichOutputs:
    """Sends displayed objects, at most `MAX_RICH_OUTPUTS` and `MAX_RICH_BYTES` for each call."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self.begin(enabled=False)

    def begin(self, *, enabled: bool) -> None:
        """A new call starts; with `enabled` false nothing is sent."""
        self.enabled = enabled
        self.dropped = 0
        self._count = 0
        self._bytes = 0

    def add(self, data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        """Send one object, given as MIME type -> content, unless it is nothing but text."""
        if not self.enabled or not set(data) - {"text/plain"}:
            return
        message = {"kind": "displayed", "data": _transportable(data), "metadata": _transportable(metadata or {})}
        try:
            frame = encode_frame(message)
        except (ValueError, TypeError, RecursionError):  # an object that contains itself
            self.dropped += 1
            return
        if self._count >= MAX_RICH_OUTPUTS or self._bytes + len(frame) > MAX_RICH_BYTES:
            self.dropped += 1
            return
        self._count += 1
        self._bytes += len(frame)
        self._send(frame)

    def note(self) -> str | None:
        """A line for standard error when objects were left out."""
        if not self.dropped:
            return None
        limits = f"at most {MAX_RICH_OUTPUTS} objects and {MAX_RICH_BYTES // 2**20} MiB a call"
        return f"display: {self.dropped} rich outputs were left out ({limits})"


def install_formatters(formatter: Any, figures: FigureDisplay) -> None:
    """Teach IPython's display formatter tables and figures; nothing is imported for it."""
    formatters = formatter.formatters
    table: Any = TableFormatter(parent=formatter)
    formatters[TABLE_TYPE] = table
    formatter.active_types = [*formatter.active_types, TABLE_TYPE]
    for module in _PANDAS_MODULES["DataFrame"]:
        table.for_type_by_name(module, "DataFrame", frame_data)
    for module in _PANDAS_MODULES["Series"]:
        table.for_type_by_name(module, "Series", series_data)
        formatters["text/html"].for_type_by_name(module, "Series", series_html)
    formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", figures.render)


def shown_text(data: dict[str, Any]) -> str | None:
    """What `display()` prints: the text of the object, unless that only names its class."""
    text = data.get("text/plain")
    if not isinstance(text, str) or (len(data) > 1 and _PLACEHOLDER.fullmatch(text)):
        return None
    return text


def _transportable(data: dict[str, Any]) -> dict[str, Any]:
    return {str(name): _as_text(value) for name, value in data.items()}


def _as_text(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value
