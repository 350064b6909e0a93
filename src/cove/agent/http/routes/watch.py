"""`/files/watch`: changes below a path, as they happen (contract §4.4).

With `?ready=true` in the handshake, a frame of type `watching` says from when on nothing is missed.
"""

import asyncio

from pydantic import ValidationError

from cove.agent.files.failures import file_error
from cove.agent.files.paths import resolved
from cove.agent.files.watching import Watcher
from cove.agent.http.errors import invalid_body
from cove.agent.http.websocket import Disconnected, WebSocket
from cove.agent.http.websocket_frames import encoded, error_frame, receive_object
from cove.agent.http.websocket_handshake import Handshake
from cove.agent.http.websocket_routes import Handler, WebSocketRoute, plain_routes
from cove.agent.state import AgentState
from cove.models.errors import CoveError, error
from cove.models.frames import WatchFrame, WatchingFrame

MAX_WATCHES = 16
FIRST_FRAME_SECONDS = 60.0


def watch_files(state: AgentState, handshake: Handshake) -> Handler:
    """One of `MAX_WATCHES`."""
    ready = handshake.arguments().get("ready", "") in ("1", "true")
    if state.watches >= MAX_WATCHES:
        raise error(
            "RESOURCE_LIMIT_EXCEEDED",
            f"The limit of {MAX_WATCHES} watches in a sandbox is reached.",
            remedy="Close some, or watch a directory that contains the others.",
        )
    state.watches += 1

    async def serve(socket: WebSocket) -> None:
        try:
            await _serve(socket, state, ready=ready)
        except CoveError as failure:
            await socket.send(error_frame(failure))
        finally:
            state.watches -= 1

    return serve


async def _serve(socket: WebSocket, state: AgentState, *, ready: bool) -> None:
    frame = await _first_frame(socket)
    path = resolved(frame.path, workspace=state.boot.workspace)
    try:
        watcher = Watcher(path, recursive=frame.recursive)
    except OSError as failure:
        raise file_error(failure, path, state.boot.limits) from None
    try:
        await watcher.start()
        if ready:
            await socket.send(encoded(WatchingFrame(path=path)))
        await _report(socket, watcher)
    except OSError as failure:
        raise file_error(failure, path, state.boot.limits) from None
    finally:
        watcher.close()


async def _first_frame(socket: WebSocket) -> WatchFrame:
    try:
        async with asyncio.timeout(FIRST_FRAME_SECONDS):
            return WatchFrame.model_validate(await receive_object(socket))
    except TimeoutError:
        raise error("TIMEOUT", f"No frame came for {FIRST_FRAME_SECONDS:.0f} s.") from None
    except ValidationError as failure:
        raise invalid_body(failure) from None


async def _report(socket: WebSocket, watcher: Watcher) -> None:
    """Tell of changes until the path is gone, or the client."""
    tasks = [asyncio.ensure_future(work) for work in (watcher.run(), _send(socket, watcher), _listen(socket))]
    watching, sending, listening = tasks
    watching.add_done_callback(lambda _: watcher.queue.finish())
    try:
        await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in (watching, sending):
        if not task.cancelled():
            task.result()


async def _send(socket: WebSocket, watcher: Watcher) -> None:
    queue = watcher.queue
    while not (queue.finished and queue.empty):
        await queue.news.wait()
        queue.news.clear()
        while not queue.empty:
            await socket.send_latest(lambda: encoded(queue.take()))


async def _listen(socket: WebSocket) -> None:
    """Nothing that a client says after its first frame has a meaning."""
    try:
        while True:
            await socket.receive()
    except Disconnected:
        return


WEBSOCKETS = (WebSocketRoute("/files/watch", watch_files),)
ROUTES = plain_routes(WEBSOCKETS)
