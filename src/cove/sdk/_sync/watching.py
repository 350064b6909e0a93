# Generated from src/cove/sdk/_async/watching.py by tools/generate_sync_sdk.py. Do not edit.

"""Changes of files, as they happen."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self

from cove.models.errors import error
from cove.models.frames import ChangeFrame, OverflowFrame, WatchFrame
from cove.sdk import _requests as requests
from cove.sdk._events import failure_of_event
from cove.sdk._failures import parse_fields
from cove.sdk._sync.agent import AgentLink
from cove.sdk._sync.websocket import Socket
from cove.sdk._websockets import CONNECT_SECONDS

FileChange = ChangeFrame | OverflowFrame


class Watch:
    """Changes below a path of the sandbox: iterate over it.

    As a context manager it watches from the beginning of the block on; otherwise from the beginning of the loop.

        async with sandbox.files.watch("/workspace") as changes:
            ...                       # nothing that happens from here on is missed
            async for change in changes:
                print(change.event, change.path)
    """

    def __init__(self, link: AgentLink, path: requests.SandboxPath, *, recursive: bool, timeout: float | None) -> None:
        self._link = link
        self._wanted = requests.checked(WatchFrame, path=requests.checked_path(path), recursive=recursive)
        self._seconds = None if timeout is None else requests.check_seconds("timeout", timeout)
        self._socket: Socket | None = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FileChange]:
        if self._socket is not None:
            with closing(self._changes(self._socket)) as changes:
                for change in changes:
                    yield change
            return
        with self:
            for change in self:
                yield change

    def close(self) -> None:
        """Watch no longer."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def _open(self) -> None:
        if self._socket is not None:
            raise error("CONFLICT", "This is watching already.", remedy="Call files.watch() once more.")
        self._socket = self._link.websocket("/files/watch?ready=true", timeout=CONNECT_SECONDS)
        try:
            self._socket.send(self._wanted)
            self._begun(self._socket)
        except BaseException:
            self.close()
            raise

    def _begun(self, socket: Socket) -> None:
        try:
            frame = socket.receive(CONNECT_SECONDS)
        except TimeoutError:
            raise error("TIMEOUT", "The watching did not begin in time.", sent=True) from None
        if frame is None:
            raise error("NETWORK_ERROR", "The watching ended before it began.", sent=True)
        _check(frame)

    def _changes(self, socket: Socket) -> Generator[FileChange, None]:
        deadline = None if self._seconds is None else time.monotonic() + self._seconds
        while deadline is None or time.monotonic() < deadline:
            try:
                frame = socket.receive(None if deadline is None else max(deadline - time.monotonic(), 0.0))
            except TimeoutError:
                return
            if frame is None:
                return
            _check(frame)
            if frame.get("type") == "change":
                yield parse_fields(ChangeFrame, frame)
            elif frame.get("type") == "overflow":
                yield parse_fields(OverflowFrame, frame)


def _check(frame: dict[str, Any]) -> None:
    if frame.get("type") == "error":
        raise failure_of_event(frame)
