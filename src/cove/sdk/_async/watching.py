"""Changes of files, as they happen."""

import time
from collections.abc import AsyncGenerator

from cove.models.frames import ChangeFrame, OverflowFrame, WatchFrame
from cove.sdk import _requests as requests
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._events import failure_of_event
from cove.sdk._failures import parse_fields
from cove.sdk._websockets import CONNECT_SECONDS

FileChange = ChangeFrame | OverflowFrame


async def changes(
    link: AsyncAgentLink, path: requests.SandboxPath, *, recursive: bool, timeout: float | None
) -> AsyncGenerator[FileChange, None]:
    """Changes below `path` until `timeout` seconds have gone by, or it is removed."""
    seconds = None if timeout is None else requests.check_seconds("timeout", timeout)
    wanted = requests.checked(WatchFrame, path=requests.checked_path(path), recursive=recursive)
    async with await link.websocket("/files/watch", timeout=CONNECT_SECONDS) as socket:
        deadline = None if seconds is None else time.monotonic() + seconds
        await socket.send(wanted)
        while deadline is None or time.monotonic() < deadline:
            try:
                frame = await socket.receive(None if deadline is None else max(deadline - time.monotonic(), 0.0))
            except TimeoutError:
                return
            if frame is None:
                return
            kind = frame.get("type")
            if kind == "error":
                raise failure_of_event(frame)
            if kind == "change":
                yield parse_fields(ChangeFrame, frame)
            elif kind == "overflow":
                yield parse_fields(OverflowFrame, frame)
