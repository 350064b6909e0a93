"""What programs beside the server write on standard error."""

import subprocess
import sys

_FAILS = """
import structlog
from cove.program_logs import log_to_stderr

log_to_stderr()
log = structlog.get_logger()

def use(value):
    try:
        raise OSError("it broke")
    except OSError as problem:
        log.exception("failed", sandbox="one")
        log.error("failed", exc_info=problem)

use("sk-live-" + "2f6c1e0b9a")
"""


def test_traces_show_where_and_not_what() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _FAILS], capture_output=True, text=True, check=True, timeout=60
    )  # a whole program: the settings of logs are a process'
    assert said.stderr.count("in use\n") == said.stderr.count("OSError: it broke") == 2
    assert "sandbox=one" in said.stderr
    assert "sk-live" not in said.stderr
