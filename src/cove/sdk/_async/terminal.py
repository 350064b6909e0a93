"""Terminals: a shell of the sandbox with a screen."""

import builtins
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Self

from cove.models.errors import error
from cove.models.frames import MAX_INPUT_CHARACTERS, TerminalInput, TerminalOutput, TerminalResize, TerminalSession
from cove.sdk import _requests as requests
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._async.primitives import Creation, begin
from cove.sdk._async.websocket import AsyncSocket
from cove.sdk._events import failure_of_event
from cove.sdk._failures import objects_in, parse_fields
from cove.sdk._retry import Retry
from cove.sdk._websockets import CONNECT_SECONDS


class AsyncTerminalConnection:
    """A terminal that is open. Iterating over it gives what it shows, until the shell ends.

    As a context manager it is closed at the end of the block; a shell without a session ends then too.

    Attributes:
        session: with it the same shell can be connected to again; None for one that ends with its connection.
        exit_code: of the shell, once it has ended; 128 + signal number when a signal ended it.
        cols, rows: size of the screen in characters.
    """

    def __init__(self, link: AsyncAgentLink, socket: AsyncSocket, *, cols: int, rows: int, timeout: float) -> None:
        self._link = link
        self._socket = socket
        self._timeout = timeout
        self._waiting: dict[str, Any] | None = None
        self.session: str | None = None
        self.exit_code: int | None = None
        self.cols = cols
        self.rows = rows

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[str]:
        while (frame := await self.next_frame()) is not None and frame.get("type") == "output":
            yield parse_fields(TerminalOutput, frame).data

    async def send(self, text: str) -> None:
        """Type `text`: `\\n` or `\\r` is the return key, `\\x03` Ctrl-C, `\\x04` Ctrl-D."""
        for start in range(0, len(text), MAX_INPUT_CHARACTERS):
            await self._socket.send(TerminalInput(type="input", data=text[start : start + MAX_INPUT_CHARACTERS]))

    async def resize(self, cols: int, rows: int) -> None:
        """Give the screen another size.

        Raises:
            InvalidRequest: no screen has this size.
        """
        await self._socket.send(requests.checked(TerminalResize, type="resize", cols=cols, rows=rows))
        self.cols, self.rows = cols, rows

    async def next_frame(self) -> dict[str, Any] | None:
        """The next `{"type": "output", "data": ...}` or `{"type": "exit", "code": ...}`; None when nothing more comes.

        Raises:
            CoveError: the connection was lost, another client took the session over, or the agent refused something.
        """
        waiting, self._waiting = self._waiting, None
        while self.exit_code is None:
            frame = waiting or await self._socket.receive()
            waiting = None
            if frame is None:
                return None
            if frame.get("type") == "error":
                raise failure_of_event(frame)
            if frame.get("type") == "exit":
                code = frame.get("code")
                self.exit_code = code if isinstance(code, int) else 1
            if frame.get("type") in ("output", "exit"):
                return frame
        return None

    async def reconnect(self) -> None:
        """Connect to the same shell again, after the connection was lost. What it showed last is shown again.

        Raises:
            Conflict: it has no session, so it ended with its connection.
            NotFound: it has ended meanwhile.
        """
        if self.session is None:
            raise error("CONFLICT", "This terminal has no session.", remedy="Open it with session='new'.")
        await self._socket.aclose()
        self._socket = await _open(self._link, self.cols, self.rows, self.session, None, timeout=self._timeout)
        await self.begin_session()

    async def begin_session(self) -> None:
        """Read which session this is, which the agent says first."""
        try:
            frame = await self._socket.receive(self._timeout)
        except TimeoutError:
            raise error("TIMEOUT", "The terminal did not begin in time.", sent=True) from None
        if frame is not None and frame.get("type") == "error":
            raise failure_of_event(frame)
        if frame is None or frame.get("type") != "session":
            self._waiting = frame
            return
        begun = parse_fields(TerminalSession, frame)
        self.session = begun.id

    async def aclose(self) -> None:
        """Close the connection."""
        await self._socket.aclose()


class AsyncTerminal:
    """Opens terminals of one sandbox.

    async with sandbox.terminal.connect(cols=120, rows=40) as terminal:
        await terminal.send("ls\\n")
        async for text in terminal:
            print(text, end="")
    """

    def __init__(self, link: AsyncAgentLink) -> None:
        self._link = link

    def connect(
        self,
        *,
        cols: int = 80,
        rows: int = 24,
        session: str | None = None,
        command: str | None = None,
        timeout: float = CONNECT_SECONDS,
    ) -> Creation[AsyncTerminalConnection]:
        """Open a terminal with a new shell in /workspace; or go on with a session.

        Args:
            session: `new` for a shell that outlives its connection; the id of such a one to go on with it, which
                takes it away from whoever is connected. Absent: the shell ends with its connection.
            command: shell text to run instead of an interactive shell.
            timeout: seconds for the connection to be made.

        Raises:
            NotFound: there is no such session.
            LimitExceeded: the sandbox has as many terminals as it may have.
        """

        async def make() -> AsyncTerminalConnection:
            requests.checked(TerminalResize, type="resize", cols=cols, rows=rows)
            socket = await _open(self._link, cols, rows, session, command, timeout=timeout)
            terminal = AsyncTerminalConnection(self._link, socket, cols=cols, rows=rows, timeout=timeout)
            try:
                if session is not None:
                    await terminal.begin_session()
            except BaseException:
                await socket.aclose()
                raise
            return terminal

        return begin(make)

    async def sessions(self) -> builtins.list[dict[str, Any]]:
        """Terminals with a session, connected to or not."""
        return objects_in(await self._link.send(requests.get("/terminal/sessions")), "sessions")

    async def end_session(self, session: str) -> None:
        """End the shell of a session.

        Raises:
            NotFound: there is no such session.
        """
        path = f"/terminal/sessions/{requests.quoted(session)}"
        await self._link.send(requests.Call(method="DELETE", path=path, retry=Retry.UNLESS_SENT))

    async def send_input(self, terminal: AsyncTerminalConnection, data: str) -> None:
        """As `terminal.send`, under the name that Hopx clients have."""
        await terminal.send(data)

    async def resize(self, terminal: AsyncTerminalConnection, cols: int, rows: int) -> None:
        """As `terminal.resize`, under the name that Hopx clients have."""
        await terminal.resize(cols, rows)

    async def iter_output(self, terminal: AsyncTerminalConnection) -> AsyncGenerator[dict[str, Any], None]:
        """Frames as Hopx clients give them: `{"type": "output", "data": ...}`, last `{"type": "exit", "code": ...}`."""
        while (frame := await terminal.next_frame()) is not None:
            yield frame


async def _open(
    link: AsyncAgentLink, cols: int, rows: int, session: str | None, command: str | None, *, timeout: float
) -> AsyncSocket:
    path = requests.with_query("/terminal", cols=cols, rows=rows, session=session, command=command)
    return await link.websocket(path, timeout=timeout)
