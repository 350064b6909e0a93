"""Logs of the programs beside the server: lines for people, on standard error."""

import sys

import structlog


def log_to_stderr() -> None:
    """Set up structlog for this process: call it once, at its start.

    Traces show where something failed, and never what variables held: that may be a user's secret.
    """
    *before, _ = structlog.get_config()["processors"]
    trace = structlog.dev.plain_traceback
    renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=trace)
    structlog.configure(processors=[*before, renderer], logger_factory=structlog.PrintLoggerFactory(sys.stderr))
