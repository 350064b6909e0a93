"""IPython's shell without a terminal: no history file, no profile, no colours, no prompts."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import Any, TextIO, cast

from IPython.core.autocall import IPyAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

from cove.agent.execution.interpreter.cells import PlainCells
from cove.agent.execution.interpreter.displays import RichOutputs, install_formatters, shown_text
from cove.agent.execution.interpreter.figures import FigureDisplay
from cove.agent.execution.interpreter.tracebacks import format_error, format_syntax_error


class CellCompiler(CachingCompiler):
    """Names the text of calls as tracebacks show it."""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return f"<cell {number}>"


class Leave(IPyAutocall):
    """`exit` and `quit`: end the call with a code; the interpreter stays."""

    rewrite = False

    def __call__(self, code: object = None) -> None:
        raise SystemExit(code)


class ResultHook(DisplayHook):
    """Shows the value of the last expression: its text on standard output, its rich forms to the agent."""

    shell: "KernelShell"

    def write_output_prompt(self) -> None:
        return

    def compute_format_data(self, result: Any) -> Any:
        return self.shell.format_object(result, rich=self.shell.rich_outputs.enabled)

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        text = format_dict.get("text/plain")
        if isinstance(text, str):
            self.shell.last_result = text
            print(text)  # noqa: T201
        self.shell.rich_outputs.add(format_dict, md_dict)

    def quiet(self) -> bool:
        cell = self.shell.current_cell
        hook: Any = self
        return ";" in cell and bool(hook.semicolon_at_end_of_expression(cell))

    def update_user_ns(self, result: Any) -> None:
        # `_` as in IPython, but without `Out`, which would keep every result alive.
        namespace = self.shell.namespace
        if namespace.get("_") is self._:
            namespace.update({"___": namespace.get("__"), "__": self._, "_": result})
            self._ = result

    def log_output(self, format_dict: dict[str, Any]) -> None:
        return

    def finish_displayhook(self) -> None:
        self._is_active = False


class Publisher(DisplayPublisher):
    """`display()`."""

    shell: "KernelShell"

    def publish(self, data: dict[str, Any], metadata: Any = None, *_: Any, **__: Any) -> None:
        text = shown_text(data)
        if text is not None:
            print(text)  # noqa: T201
        self.shell.rich_outputs.add(data, metadata)

    def clear_output(self, wait: bool = False) -> None:
        return


class KernelShell(InteractiveShell):
    """The shell of a kernel process; built before the fork.

    Attributes:
        last_result: text of the last expression's value in the current call.
        error_stream: where tracebacks go; the program may replace sys.stderr.
    """

    compiler_class = Type(CellCompiler)
    displayhook_class = Type(ResultHook)
    display_pub_class = Type(Publisher)

    last_result: str | None = None
    error_stream: TextIO
    rich_outputs: RichOutputs
    figures: FigureDisplay
    plain_cells: PlainCells
    current_cell: str = ""

    def init_ipython_dir(self, ipython_dir: str | None) -> None:
        return

    def init_profile_dir(self, profile_dir: Any) -> None:
        return

    def init_virtualenv(self) -> None:
        return

    def init_user_ns(self) -> None:
        super().init_user_ns()
        self.namespace["exit"] = self.namespace["quit"] = Leave(self)

    def init_display_formatter(self) -> None:
        super().init_display_formatter()
        self.error_stream = sys.stderr
        self.rich_outputs = RichOutputs(lambda message: None)
        self.figures = FigureDisplay(self.rich_outputs.add)
        install_formatters(self._formatter(), self.figures)

    @property
    def namespace(self) -> dict[str, Any]:
        """The user's variables."""
        return cast(dict[str, Any], self.user_ns)  # pyright: ignore[reportUnknownMemberType]

    def execute(self, code: str) -> BaseException | None:
        """Run one cell; returns how it failed."""
        self.current_cell = code
        parts = self.plain_cells.compile(code)
        if parts is not None:
            return self.plain_cells.run(code, parts)
        ended = self.run_cell(code, store_history=True)  # pyright: ignore[reportUnknownMemberType]
        return ended.error_before_exec or ended.error_in_exec

    def forget(self) -> None:
        """Leave no trace of the cells that were run so far, apart from variables they have set."""
        self.execution_count = 1
        self.last_result = None
        self.displayhook._ = self.displayhook.__ = self.displayhook.___ = ""
        self.namespace.update({"_": "", "__": "", "___": ""})

    def format_object(self, value: object, *, rich: bool) -> Any:
        """`value` in all its representations, or as text only: (content by MIME type, metadata)."""
        return self._formatter().format(value, include=None if rich else {"text/plain"})

    def _formatter(self) -> Any:
        return self.display_formatter

    def connect(self, rich_outputs: RichOutputs, error_stream: TextIO) -> None:
        """Give displayed objects and tracebacks their ways out of this process."""
        self.rich_outputs = rich_outputs
        self.error_stream = error_stream
        self.figures.publish = rich_outputs.add

    def system(self, cmd: str) -> None:
        """`!command`: with Bash, straight onto the call's own output."""
        sys.stdout.flush()
        expanded = cast(str, self.var_expand(cmd, depth=1))  # pyright: ignore[reportUnknownMemberType]
        ended = subprocess.run(["bash", "-c", expanded], stdin=subprocess.DEVNULL, check=False)
        self.namespace["_exit_code"] = ended.returncode if ended.returncode >= 0 else 128 - ended.returncode

    def enable_gui(self, gui: str | None = None) -> None:
        return

    def enable_matplotlib(self, gui: str | None = None) -> tuple[str, str]:
        """`%matplotlib ...`: figures are always shown in the answer."""
        return "inline", "agg"

    def showtraceback(
        self,
        exc_tuple: tuple[type[BaseException], BaseException, TracebackType | None] | None = None,
        *_: Any,
        **__: Any,
    ) -> None:
        problem, trace = (exc_tuple or sys.exc_info())[1:]
        if problem is None or (isinstance(problem, SystemExit) and not isinstance(problem.code, str)):
            return
        if isinstance(problem, SystemExit):
            self._report(f"{problem.code}\n")
        else:
            self._report(format_error(problem, trace))

    def showsyntaxerror(self, filename: str | None = None, running_compiled_code: bool = False) -> None:
        problem, trace = sys.exc_info()[1:]
        if problem is not None:
            own = format_error(problem, trace) if running_compiled_code else format_syntax_error(problem)
            self._report(own)

    def _report(self, text: str) -> None:
        # Output that was printed before must not come after its traceback.
        sys.stdout.flush()
        self.error_stream.write(text.encode("utf-8", "replace").decode())
        self.error_stream.flush()

    @contextmanager
    def _tee(self, channel: str) -> Generator[None]:
        # IPython keeps a copy of all output in its history; the agent collects it, bounded.
        yield


def build_shell() -> KernelShell:
    """The process's one shell; the second call returns the first one's."""
    if KernelShell.initialized():
        return KernelShell.instance()
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.cache_size = 0
    config.InteractiveShell.autoawait = True
    config.InteractiveShell.enable_tip = False
    config.Completer.use_jedi = False
    main = sys.modules["__main__"]
    shell = KernelShell.instance(config=config)
    shell.db = {}
    shell.plain_cells = PlainCells(shell)
    # The kernel process makes the user's module `__main__`; here it is still the agent's.
    sys.modules["__main__"] = main
    return shell


def adopt_main(shell: KernelShell) -> None:
    """Make the user's namespace the module `__main__`, as pickle and multiprocessing expect it."""
    sys.modules["__main__"] = cast(ModuleType, shell.user_module)  # pyright: ignore[reportUnknownMemberType]
    if "" not in sys.path:
        sys.path.insert(0, "")
