"""Structured logs: one JSON object a line, or colours for people."""

import logging
import re
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from cove.server.settings import Settings

_SECRET_NAMES = re.compile(r"authorization|api[-_]?key$|cookie|password|secret|auth_token|^token$", re.IGNORECASE)
_SECRETS = re.compile(r"hopx_live_[A-Za-z0-9]+\.[A-Za-z0-9_-]+|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MAX_TEXT = 4000


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Set up structlog for this process: call it once, at its start."""
    out = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format == "auto" and (settings.dev or out.isatty()))
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else structlog.processors.JSONRenderer()
    )
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        without_secrets,
        renderer,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(out),
        # Not with a stream that somebody passes in: it may be closed while loggers go on.
        cache_logger_on_first_use=stream is None,
    )


def without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask keys and tokens, and keep values short: what a client sent may end up in any of them."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = "***"
        elif isinstance(value, str):
            event[name] = _SECRETS.sub("***", value[:_MAX_TEXT])
    return event
