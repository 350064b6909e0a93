"""How the server introduces itself. Plain data: the greeting uses it before the library is loaded."""

from typing import Any, Final

from cove.models.version import VERSION

NAME: Final = "cove"
TITLE: Final = "Cove sandboxes"
DESCRIPTION: Final = "Runs code in isolated sandboxes on your own machines."

_HEAD: Final = """\
Cove runs code that you write in isolated sandboxes. Nothing you run touches the user's machine or files.
"""
_ISOLATED: Final = """\
- One program, no state to keep: execute_code_isolated(code, language). Makes a sandbox, runs, destroys it.
"""
_STEPS: Final = """\
- Several steps: create_sandbox() once, then pass its id as sandbox_id. execute_code_persistent keeps variables and \
imports (python, javascript){rich}. delete_sandbox at the end.
- Files: file_write, file_read{list}; /workspace is the working directory. run_command runs shell text.
"""
_LONG: Final = """\
- Longer than 5 minutes: execute_code_background, then execute_list_processes, execute_kill_process. A server to look \
at: start it in the background, then get_preview_url.
"""
_NAMED: Final = """\
- Sandboxes with names of your own: sandbox_start, sandbox_run_code, sandbox_run_command; sandbox_stop at the end.
"""
_RESULTS: Final = """
A program that fails is a normal result: read exit_code and stderr, correct the code, run it again. isError means that \
the platform refused or failed; the text says what to do. Print what you need: long output is cut in the middle\
"""
_REST: Final = """\
, and a mark says how to read the rest with file_read(path, offset, limit). Languages: python, javascript, bash, go. \
Without internet_access=true there may be no network. Sandboxes end at their deadline\
"""
_RICH: Final = "; execute_code_rich also returns plots as images and tables as data"
_DEADLINE: Final = "; update_sandbox_timeout moves it"


def instructions_for(toolset: str) -> str:
    """What a model is told about a set of tools (`cove.mcp.toolsets`); speaks of no tool outside of it."""
    match toolset:
        case "core":
            steps = _STEPS.format(rich="", list="")
            return f"{_HEAD}\n{_ISOLATED}{steps}{_RESULTS}{_REST}.\n"
        case "microsandbox":
            return f"{_HEAD}\n{_NAMED}{_RESULTS}. Languages: python, javascript.\n"
        case _:
            steps = _STEPS.format(rich=_RICH, list=", file_list")
            named = "" if toolset == "hopx" else _NAMED
            return f"{_HEAD}\n{_ISOLATED}{steps}{_LONG}{named}{_RESULTS}{_REST}{_DEADLINE}.\n"


CAPABILITIES: Final[dict[str, Any]] = {
    "prompts": {"listChanged": False},
    "resources": {"listChanged": False, "subscribe": False},
    "tools": {"listChanged": False},
    "completions": {},
}
"""What the library makes of the methods that are answered."""

VERSION_SHOWN: Final = VERSION
