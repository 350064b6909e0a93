"""What `cove mcp` does once everything is loaded: the session with the assistant, and the server behind it."""

import asyncio
import contextlib
import signal
import sys

import structlog

from cove.cli.attachments import LocalAttacher, attach_named
from cove.cli.local_server import Start
from cove.cli.mcp_stdio import Options, api_key, data_directory
from cove.mcp.attached_caller import Attach, AttachedCaller
from cove.mcp.patient_control import with_progress
from cove.mcp.server import build_server
from cove.mcp.standard_streams import Wire
from cove.mcp.stdio import serve_stdio
from cove.mcp.toolsets import Toolset
from cove.models.errors import CoveError

_FAREWELL_SECONDS = 2.0


def serve(options: Options, wire: Wire, begun: Start | CoveError | None) -> int:
    """Serve until the assistant closes its end, or SIGTERM or SIGINT.

    Returns:
        The exit code.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    return asyncio.run(_session(options, wire, begun))


async def _session(options: Options, wire: Wire, begun: Start | CoveError | None) -> int:
    code = 0
    session = asyncio.current_task()
    assert session

    def end(signal_code: int) -> None:
        nonlocal code
        code = signal_code
        session.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end, 0)
    loop.add_signal_handler(signal.SIGINT, end, 130)
    attach: Attach
    if options.server_url:
        attach = attach_named(options.server_url, api_key())
    else:
        attach = LocalAttacher(data_directory(options), begun).attach
    caller = AttachedCaller(attach)
    server = build_server(caller, toolset=Toolset(options.toolset))
    server.middleware.append(with_progress)
    try:
        await serve_stdio(server, wire)
    except asyncio.CancelledError:
        pass
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await caller.aclose()
    return code
