"""The agent's life: what is loaded before the fork, and what runs after it."""

import asyncio
import functools
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn, cast

from starlette.applications import Starlette
from uvicorn.config import Config

from cove.agent.app import build_app, build_skeleton
from cove.agent.engine import Engine
from cove.agent.execution.environment import SandboxEnvironment
from cove.agent.execution.executor import Executor
from cove.agent.execution.limit_events import LimitCounters
from cove.agent.execution.reaper import Reaper
from cove.agent.http.server import AgentServer, quiet_logs, server_config
from cove.agent.rehearsal import rehearse
from cove.agent.state import AgentState
from cove.models.agent import AgentBoot
from cove.models.errors import CoveError
from cove.models.execution import MAX_EXECUTION_SECONDS
from cove.models.processes import BackgroundCommand

GRACE_SECONDS = 1.0
CLOSE_SECONDS = 5.0


def preload() -> None:
    """Load and exercise everything that answering takes, in the warm process, before the fork.

    Importing this module loads the code; rehearsed requests then fill the caches that Python, pydantic and Starlette
    keep. Leaves no thread, no event loop and no descriptor behind.
    """
    quiet_logs()
    skeleton, config = _prepared()
    rehearse(skeleton, config)


def run(listener: socket.socket, boot: AgentBoot, counters: Mapping[str, int] | None = None) -> NoReturn:
    """Be the agent: serve on `listener` until SIGTERM, as the first process of a sandbox for ever. To be called after
    the fork, in a process of its own. `counters` are descriptors as `LimitCounters` takes them."""
    code = 1
    try:
        # Not uvloop: measured after a fork it is no sooner at its first answer, and takes 0.9 MB more memory.
        # Not asyncio.Runner: nothing of what it restores at the end is left then.
        asyncio.SelectorEventLoop().run_until_complete(_serve(listener, boot, LimitCounters(counters)))
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        # No interpreter shutdown: what the warm process registered to run at its exit is not ours to run.
        os._exit(code)


@functools.cache
def _prepared() -> tuple[Starlette, Config]:
    """What is the same in every sandbox; made once in a process. A process is one sandbox's agent, or its parent."""
    skeleton = build_skeleton()
    return skeleton, server_config(skeleton)


async def _run_start_command(executor: Engine, command: str) -> None:
    """A background program like any other; that it cannot start is no reason to have no sandbox."""
    request = BackgroundCommand(command=command, name="start", timeout=MAX_EXECUTION_SECONDS)
    try:
        await executor.background.start_command(request)
    except CoveError as problem:
        print(f"the start command did not start: {problem}", file=sys.stderr, flush=True)  # noqa: T201


async def _serve(listener: socket.socket, boot: AgentBoot, counters: LimitCounters) -> None:
    environment = SandboxEnvironment(boot.base_environment, boot.env_vars)
    reaper = Reaper()
    executor: Engine = Executor(boot, environment, reaper=reaper, counters=counters)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    # In a sandbox it is the first process, which its host ends with SIGKILL: these can only come from programs inside.
    of_a_sandbox = os.getpid() == 1

    def stop(number: int, frame: FrameType | None) -> None:
        if not of_a_sandbox:
            loop.call_soon_threadsafe(stopped.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)  # the loop's own handlers take 0.5 ms more to set up
    # The interpreter of the user is forked first: it gets ready while the server does.
    await executor.start()
    skeleton, config = _prepared()
    app = build_app(boot, executor, environment, reaper=reaper, skeleton=skeleton)
    server = AgentServer(app, listener, config=config)
    await server.start()
    if boot.start_command:
        await _run_start_command(executor, boot.start_command)
    await stopped.wait()
    async with asyncio.timeout(CLOSE_SECONDS):
        await server.close(grace=GRACE_SECONDS)
        await cast(AgentState, app.state.agent).close()
        await executor.close()
