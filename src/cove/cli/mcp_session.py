"""What `cove mcp` does once everything is loaded: the session with the assistant, and the server behind it."""

import asyncio
import contextlib
import signal
from typing import Final

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
from cove.program_logs import log_to_stderr

_CLEAN_UP_SECONDS: Final = 1.0
_FAREWELL_SECONDS: Final = 2.0


def serve(options: Options, wire: Wire, begun: Start | CoveError | None) -> int:
    """Serve until the assistant closes its end, or SIGTERM or SIGINT.

    Returns:
        The exit code.
    """
    log_to_stderr()
    return asyncio.run(_session(options, wire, begun))


async def _session(options: Options, wire: Wire, begun: Start | CoveError | None) -> int:
    codes: list[int] = []
    left = asyncio.Event()

    def end(code: int) -> None:
        codes.append(code)
        left.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end, 0)
    loop.add_signal_handler(signal.SIGINT, end, 130)
    caller = AttachedCaller(_attach(options, begun))
    server = build_server(caller, toolset=Toolset(options.toolset))
    server.middleware.append(with_progress)
    serving = asyncio.create_task(serve_stdio(server, wire, on_end=left.set))
    leaving = asyncio.create_task(left.wait())
    await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    await _farewell(serving, caller, at_once=bool(codes))
    return codes[0] if codes else 0


def _attach(options: Options, begun: Start | CoveError | None) -> Attach:
    if options.server_url:
        return attach_named(options.server_url, api_key())
    return LocalAttacher(data_directory(options), begun).attach


async def _farewell(serving: asyncio.Task[None], caller: AttachedCaller, *, at_once: bool) -> None:
    """Let what runs clean up after itself, but not for long: what it leaves ends with the lease."""
    if not at_once:
        await asyncio.wait({serving}, timeout=_CLEAN_UP_SECONDS)
    serving.cancel()
    await asyncio.wait({serving}, timeout=_CLEAN_UP_SECONDS)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await caller.aclose()
    if serving.done() and not serving.cancelled() and (problem := serving.exception()) is not None:
        raise problem
