"""How the server introduces itself. Plain data: the greeting uses it before the library is loaded."""

from typing import Any, Final

from cove.models.version import VERSION

NAME: Final = "cove"
TITLE: Final = "Cove sandboxes"
DESCRIPTION: Final = "Runs code in isolated sandboxes on your own machines."

INSTRUCTIONS: Final = """\
Cove runs code that you write in isolated sandboxes. Nothing you run touches the user's machine or files.

- One program, no state to keep: execute_code_isolated(code, language). Makes a sandbox, runs, destroys it.
- Several steps: create_sandbox() once, then pass its id as sandbox_id. execute_code_persistent keeps variables and \
imports (python, javascript); execute_code_rich also returns plots as images and tables as data. \
delete_sandbox at the end.
- Files: file_write, file_read, file_list; /workspace is the working directory. run_command runs shell text.
- Longer than 5 minutes: execute_code_background, then execute_list_processes, execute_kill_process. A server to look \
at: start it in the background, then get_preview_url.
- Sandboxes with names of your own: sandbox_start, sandbox_run_code, sandbox_run_command, sandbox_stop.

A program that fails is a normal result: read exit_code and stderr, correct the code, run it again. isError means that \
the platform refused or failed; the text says what to do. Print what you need: long output is cut in the middle, and a \
mark says how to read the rest with file_read(path, offset, limit). Languages: python, javascript, bash, go. Without \
internet_access=true there may be no network. Sandboxes end at their deadline; update_sandbox_timeout moves it.
"""

CAPABILITIES: Final[dict[str, Any]] = {
    "prompts": {"listChanged": False},
    "resources": {"listChanged": False, "subscribe": False},
    "tools": {"listChanged": False},
    "completions": {},
}
"""What the library makes of the methods that are answered."""

VERSION_SHOWN: Final = VERSION
