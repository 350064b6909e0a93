"""uvicorn, for servers of which a test has several or a module dozens."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn


class PromptServer(uvicorn.Server):
    """Ends when it is told to; uvicorn itself looks every 0.1 s. Signals belong to pytest."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def end(self) -> None:
        """Make `serve` return."""
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        """Wait for the end; nothing else that uvicorn does in turns is needed for so short a life."""
        await self.on_tick(0)
        await self._told.wait()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """None."""
        yield
