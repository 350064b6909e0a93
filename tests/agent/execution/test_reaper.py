"""Children, orphans, and the children of others in the same process."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from cove.agent.execution.reaper import Reaper
from cove.agent.execution.spawning import Invocation, spawn

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]


def start(script: str, directory: Path) -> int:
    with open(os.devnull, "w") as null:
        invocation = Invocation(["bash", "-c", script], {"PATH": "/usr/bin:/bin"}, str(directory))
        return spawn(invocation, stdout=null.fileno(), stderr=null.fileno())


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.01)


async def test_exit_codes(tmp_path: Path) -> None:
    reaper = Reaper()
    reaper.start()
    try:
        ended = [reaper.watch(start(script, tmp_path)) for script in ("exit 3", "kill -9 $$", "exit 0")]
        assert await asyncio.wait_for(asyncio.gather(*ended), 10) == [3, 137, 0]
    finally:
        reaper.close()


async def test_orphans_are_reaped_and_children_of_others_are_not(tmp_path: Path) -> None:
    reaper = Reaper()
    reaper.start()
    try:
        other = subprocess.Popen(["bash", "-c", "exit 7"])
        ended = reaper.watch(start("(sleep 0.2 & echo $! > pid; setsid sleep 60 & echo $! > stays)", tmp_path))
        assert await asyncio.wait_for(ended, 10) == 0
        pid, stays = (int((tmp_path / name).read_text()) for name in ("pid", "stays"))
        assert stays in reaper.adopted()
        await until(lambda: not os.path.exists(f"/proc/{pid}"))
        assert other.wait(10) == 7
        os.kill(stays, 9)
        await until(lambda: not os.path.exists(f"/proc/{stays}"))
    finally:
        reaper.close()
