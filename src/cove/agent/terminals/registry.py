"""All terminals of one sandbox."""

import asyncio
import secrets
from collections.abc import Callable

from cove.agent.execution.reaper import Reaper
from cove.agent.execution.spawning import Invocation
from cove.agent.terminals.starting import start_on_terminal
from cove.agent.terminals.terminal import Terminal
from cove.models.errors import error

MAX_TERMINALS = 16
DETACHED_SECONDS = 3600.0
TERMINAL_TYPE = "xterm-256color"
_END_SECONDS = 5.0


class Terminals:
    """Starts terminals, keeps those that outlive their client, and ends what nobody comes back to.

    A kept terminal whose program has ended stays, with its last output, until somebody has seen it.
    """

    def __init__(
        self, reaper: Reaper, variables: Callable[[], dict[str, str]], directory: str, *, detached: float | None = None
    ) -> None:
        """`variables` of the sandbox; `detached`: seconds that a terminal lives without a client."""
        self._reaper = reaper
        self._variables = variables
        self._directory = directory
        self._detached = DETACHED_SECONDS if detached is None else detached
        self._terminals: dict[str, Terminal] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._endings: set[asyncio.Task[None]] = set()

    def start(self, *, columns: int, rows: int, command: str | None, kept: bool) -> tuple[str, Terminal]:
        """A shell, or `command` in one, on a new terminal, and the id of that.

        Raises:
            CoveError: RESOURCE_LIMIT_EXCEEDED.
        """
        self._make_room()
        argv = ["bash"] if command is None else ["bash", "-c", command]
        variables = {"TERM": TERMINAL_TYPE, **self._variables()}
        pid, descriptor = start_on_terminal(Invocation(argv, variables, self._directory), columns=columns, rows=rows)
        ended = self._reaper.watch(pid)
        terminal = Terminal(pid, descriptor, ended, columns=columns, rows=rows, kept=kept)
        name = f"term_{secrets.token_hex(12)}"
        self._terminals[name] = terminal
        return name, terminal

    def find(self, name: str) -> Terminal:
        """The kept terminal with this id.

        Raises:
            CoveError: RESOURCE_NOT_FOUND.
        """
        terminal = self._terminals.get(name)
        if terminal is None or not terminal.kept:
            raise error(
                "RESOURCE_NOT_FOUND",
                "There is no such terminal session.",
                remedy="GET /terminal/sessions lists them; ?session=new starts one.",
            )
        return terminal

    def kept(self) -> dict[str, Terminal]:
        """Those that can be connected to, by id."""
        return {name: terminal for name, terminal in self._terminals.items() if terminal.kept}

    def claim(self, name: str) -> None:
        """A client looks at it: it has no deadline any more."""
        deadline = self._deadlines.pop(name, None)
        if deadline is not None:
            deadline.cancel()

    async def release(self, name: str, terminal: Terminal, *, seen: bool) -> None:
        """Its client has gone. `seen`: it was told of the program's end."""
        if terminal.attached or name not in self._terminals:
            return
        if terminal.kept and not seen:
            loop = asyncio.get_running_loop()
            self._deadlines[name] = loop.call_later(self._detached, self._begin_end, name)
            return
        await self.end(name)

    async def end(self, name: str) -> None:
        """End one; even when this is cancelled. Does nothing when there is none of this id."""
        ending = self._begin_end(name)
        if ending is not None:
            await asyncio.shield(ending)

    async def close(self) -> None:
        """End all."""
        for name in list(self._terminals):
            self._begin_end(name)
        if self._endings:
            await asyncio.wait(self._endings, timeout=_END_SECONDS)

    def _make_room(self) -> None:
        for name, terminal in list(self._terminals.items()):
            if len(self._terminals) < MAX_TERMINALS:
                return
            if terminal.exit_code is not None and not terminal.attached:
                self._begin_end(name)
        if len(self._terminals) >= MAX_TERMINALS:
            raise error(
                "RESOURCE_LIMIT_EXCEEDED",
                f"The limit of {MAX_TERMINALS} terminals in a sandbox is reached.",
                remedy="Close some; DELETE /terminal/sessions/{id} ends one that nobody is connected to.",
            )

    def _begin_end(self, name: str) -> "asyncio.Task[None] | None":
        terminal = self._terminals.pop(name, None)
        self.claim(name)
        if terminal is None:
            return None
        ending = asyncio.get_running_loop().create_task(terminal.end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending
