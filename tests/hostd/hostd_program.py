"""The host daemon as a program, on a data directory of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.contract.driver_fixtures import (
    SMALL,
    NamespaceSubject,
    built_template,
    clean_up,
    short_directory,
    spec_of,
)

from cove.hostd.client import RemoteHost
from cove.models.hosts import SandboxRecord

START_SECONDS = 40.0
END_SECONDS = 20.0


class Program:
    """`python -m cove.hostd` on one data directory, started again and again."""

    def __init__(self, data_dir: Path, subject: NamespaceSubject) -> None:
        self.data_dir = data_dir
        self.subject = subject
        self.remote = RemoteHost(data_dir / "run/hostd.sock")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> None:
        """Return when it is ready."""
        ready, for_child = os.pipe()
        try:
            self._process = await self.launch("--ready-fd", str(for_child), *arguments, keep=for_child)
            os.close(for_child)
            assert await asyncio.wait_for(asyncio.to_thread(os.read, ready, 1), START_SECONDS) == b"!"
        finally:
            os.close(ready)

    async def launch(self, *arguments: str, keep: int | None = None) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cove.hostd", "--data-dir", self.data_dir.name, "--isolation", "namespace"),
            *arguments,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=() if keep is None else (keep,),
            cwd=self.data_dir.parent,
        )

    async def end(self, number: int = signal.SIGTERM) -> int:
        """End the running one and return its exit code."""
        assert self._process
        if self._process.returncode is None:
            self._process.send_signal(number)
        await asyncio.wait_for(self._process.communicate(), END_SECONDS)
        code, self._process = self._process.returncode, None
        assert code is not None
        return code

    async def create(self, **fields: object) -> SandboxRecord:
        asked = spec_of(self.subject, SMALL, **fields)
        record = await self.remote.create(asked)
        assert self.subject.remains_of(record)
        return record

    async def close(self) -> None:
        """End everything, sandboxes that were to be kept included."""
        if not self._process and self.subject.remains():
            await self.start()
        if self._process:
            assert await self.end() == 0
        await self.remote.close()


@asynccontextmanager
async def on_own_directory(built_data_dir: Path) -> AsyncGenerator[Program]:
    """With the templates that are built; nothing is left of it afterwards."""
    with short_directory() as data_dir:
        for name in ("templates", "layers"):
            (data_dir / name).symlink_to(built_data_dir / name)
        (data_dir / "run").mkdir()
        subject = NamespaceSubject(data_dir / "run", built_template(built_data_dir, "base"), mark="")
        program = Program(data_dir, subject)
        try:
            yield program
        finally:
            try:
                await program.close()
            finally:
                await clean_up(subject)
        assert list((data_dir / "run/sandboxes").iterdir()) == []
