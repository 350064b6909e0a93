"""The process of `cove mcp`: claim the wire, begin a server, load the library, greet meanwhile, then serve.

Whatever happens before the greeting costs the user's time, so imports are where they are needed.
"""

import importlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cove.cli.local_server import Start
    from cove.models.errors import CoveError

TOOLSETS: Final = ("core", "hopx", "microsandbox", "all")
URL_VARIABLES: Final = ("COVE_BASE_URL", "HOPX_BASE_URL", "MSB_SERVER_URL")
KEY_VARIABLES: Final = ("COVE_API_KEY", "HOPX_API_KEY", "MSB_API_KEY")
"""Cove's own first; the others so that what was written for these products needs another command only."""

_LOOK_SECONDS: Final = 0.05
_NAMES: Final = {"--toolset": "toolset", "--server": "server", "--data-dir": "data_dir"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `cove mcp` was asked for."""

    toolset: str = "all"
    server: str | None = None
    data_dir: Path | None = None

    @property
    def server_url(self) -> str | None:
        """The server to use; None for the one of this machine."""
        return self.server or _first_set(URL_VARIABLES)


def plain_options(arguments: Sequence[str]) -> Options | None:
    """The options, if there is nothing among the arguments but these; otherwise the full command line has to look."""
    found: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, separator, value = word.partition("=")
        if name not in _NAMES:
            return None
        if not separator and not (value := next(words, "")):
            return None
        found[_NAMES[name]] = value
    toolset, data_dir = found.get("toolset", "all"), found.get("data_dir")
    if toolset not in TOOLSETS:
        return None
    return Options(toolset=toolset, server=found.get("server"), data_dir=Path(data_dir) if data_dir else None)


def run(options: Options) -> int:
    """Serve the assistant at the other end of standard input and output, until it goes.

    Returns:
        The exit code.
    """
    from cove.mcp.standard_streams import claim_standard_streams

    wire = claim_standard_streams()
    begun = None if options.server_url else _begin(options)
    loading = _Loading()
    loading.start()
    wire.greet(until=loading.is_over, toolset=options.toolset)
    while loading.is_alive():
        if wire.abandoned:
            # Not by the usual way, which would wait for the imports.
            os._exit(0)
        loading.join(_LOOK_SECONDS)
    if loading.problem is not None:
        raise loading.problem
    from cove.cli.mcp_session import serve

    return serve(options, wire, begun)


class _Loading(threading.Thread):
    """Imports, which take a second, beside what need not wait for them."""

    def __init__(self) -> None:
        super().__init__(name="loading", daemon=True)
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            importlib.import_module("cove.cli.mcp_session")
        except BaseException as problem:
            self.problem = problem

    def is_over(self) -> bool:
        return not self.is_alive()


def _begin(options: Options) -> "Start | CoveError | None":
    """A problem is for the first call to tell: a program that ends at its start is a riddle to its user."""
    from cove.cli.local_server import begin
    from cove.models.errors import CoveError

    try:
        return begin(data_directory(options))
    except CoveError as problem:
        return problem


def data_directory(options: Options) -> Path:
    """The chosen directory, or the default one."""
    from cove.models.directories import default_data_dir

    chosen = options.data_dir or Path(os.environ.get("COVE_DATA_DIR") or default_data_dir())
    return chosen.expanduser().absolute()


def _first_set(names: Sequence[str]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def api_key() -> str | None:
    """For a server that was named."""
    return _first_set(KEY_VARIABLES)
