"""What is done once, in the warm process, before sandboxes are forked from it."""

import gc
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from cove.agent.execution.interpreter.figures import BACKEND
from cove.agent.execution.interpreter.shell import KernelShell, build_shell

_WARM_UP = "1 + 1\n"
_WARM_UP_ERROR = "1 / 0\n"
_WARM_UP_MACHINERY = "%pwd\n"


def prepare(preload: Sequence[str]) -> None:
    """Import `preload`, build the shell, and run everything once that is slow the first time.

    Modules that cannot be imported are reported on standard error and left out. A second call only imports what is
    new. Afterwards this process has one thread: libraries that start workers end them in their fork handlers.
    """
    if KernelShell.initialized() and not preload:
        return
    os.environ.setdefault("MPLBACKEND", BACKEND)
    for name in preload:
        _import(name)
    if not KernelShell.initialized():
        shell = build_shell()
        shell.figures.install()
        _warm_up(shell)
    _end_worker_threads()


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as problem:
        print(f"preload of {name}: {problem!r}", file=sys.stderr)  # noqa: T201


def _warm_up(shell: KernelShell) -> None:
    warnings.filterwarnings("ignore", message="To exit: use 'exit', 'quit', or Ctrl-D.")
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors:
        shell.error_stream = errors
        shell.rich_outputs.begin(enabled=True)
        for code in (_WARM_UP, _WARM_UP_ERROR, _WARM_UP_MACHINERY):
            shell.execute(code)
        if "pandas" in sys.modules:
            _draw_table(shell)
        if "matplotlib.pyplot" in sys.modules:
            _draw_figure(shell)
        shell.rich_outputs.begin(enabled=False)
        shell.forget()
    shell.error_stream = sys.stderr


def _draw_table(shell: KernelShell) -> None:
    pandas = sys.modules["pandas"]
    shell.format_object(pandas.DataFrame({"a": [1], "b": ["x"]}), rich=True)


def _draw_figure(shell: KernelShell) -> None:
    figure = sys.modules["matplotlib.pyplot"].figure()
    figure.add_subplot().plot([0, 1])
    shell.format_object(figure, rich=True)
    shell.figures.finish(show=False)
    del figure
    # Fonts hold their files open; descriptors do not survive the fork into a sandbox.
    get_font = getattr(sys.modules["matplotlib.font_manager"], "_get_font", None)
    if get_font is not None:
        get_font.cache_clear()
    gc.collect()


def _end_worker_threads() -> None:
    if _thread_count() > 1:
        # OpenBLAS and others stop their workers before a fork and start new ones when they need them.
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    if _thread_count() > 1:
        print(f"warning: {_thread_count()} threads run in the process to be forked", file=sys.stderr)  # noqa: T201


def _thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
