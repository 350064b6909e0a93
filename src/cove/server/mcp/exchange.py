"""One HTTP request for the library, with an eye on its client: a call that nobody waits for any more is ended.

The library does so itself for streamed answers of the stateless revision. It does not for plain JSON, nor for the older
revisions, which have clients send `notifications/cancelled`: there a lost connection could be a passing fault, and the
client come back for its answer. This server keeps no answers, so nobody would ever get it.
"""

import asyncio
import json
from contextlib import suppress
from typing import Any, Protocol, cast

import anyio
from starlette.types import Message, Receive, Scope, Send

_ACCEPT = b"accept"
_EVENTS = (b"text/event-stream", b"text/*", b"*/*")
_JSON = (b"application/json", b"application/*", b"*/*")
_BOTH = b"application/json, text/event-stream"
_CANCEL_SECONDS = 5.0


class Manager(Protocol):
    """Serves requests of one kind: the library's `StreamableHTTPSessionManager`."""

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        ...


def takes_events(scope: Scope) -> bool:
    """Whether the client takes a stream; if it says nothing, it does."""
    accepted = _accepted(scope)
    return not accepted or any(kind in accepted for kind in _EVENTS)


def accepting_both(scope: Scope) -> Scope:
    """The request as if its client accepted both kinds of answers, which the library insists on, if it takes any."""
    accepted = _accepted(scope)
    if accepted and not any(kind in accepted for kind in (*_EVENTS, *_JSON)):
        return scope
    others = [(name, value) for name, value in scope["headers"] if name != _ACCEPT]
    return {**scope, "headers": [*others, (_ACCEPT, _BOTH)]}


async def exchange(
    manager: Manager,
    scope: Scope,
    body: bytes,
    receive: Receive,
    send: Send,
    *,
    in_session: bool = False,
    ending: asyncio.Event | None = None,
) -> None:
    """Have a request answered, whose body has been read.

    Args:
        in_session: it belongs to a session of an older revision.
        ending: ends the answer when it is set, as if the client had left.
    """
    gone, begun, answered = asyncio.Event(), False, False

    async def noted(message: Message) -> None:
        nonlocal begun, answered
        await send(message)
        begun = True
        answered = answered or (message["type"] == "http.response.body" and not message.get("more_body", False))

    async def watch() -> None:
        await _leaving(receive, ending)
        gone.set()
        if answered:
            return
        if in_session:
            await _cancel_call(manager, scope, body)
        else:
            serving.cancel()

    with anyio.CancelScope() as serving:
        watching = asyncio.create_task(watch())
        try:
            await manager.handle_request(accepting_both(scope), _replayed(body, gone), noted)
        finally:
            if not gone.is_set():
                watching.cancel()
            with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
                await watching
    if begun and not answered:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _leaving(receive: Receive, ending: asyncio.Event | None) -> None:
    """Wait until the client has left, or has to."""
    if ending is None:
        await _disconnected(receive)
        return
    waits = [asyncio.ensure_future(_disconnected(receive)), asyncio.ensure_future(ending.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _replayed(body: bytes, gone: asyncio.Event) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive


async def _cancel_call(manager: Manager, scope: Scope, body: bytes) -> None:
    """Say for the client that the call of this request is cancelled (2025-11-25, basic/utilities/cancellation)."""
    called = _request_id(body)
    if called is None:
        return
    params = {"requestId": called, "reason": "The client's connection was lost."}
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
    never = asyncio.Event()
    with anyio.move_on_after(_CANCEL_SECONDS):
        await manager.handle_request(
            accepting_both({**scope, "method": "POST"}), _replayed(json.dumps(note).encode(), never), _unheard
        )


def _request_id(body: bytes) -> str | int | None:
    """Of a JSON-RPC request; None for anything else."""
    try:
        message: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    found: Any = cast("dict[str, Any]", message).get("id") if "method" in message else None
    return found if isinstance(found, str | int) else None


async def _unheard(message: Message) -> None:
    """Answers to what the client did not ask."""


def _accepted(scope: Scope) -> list[bytes]:
    values = b",".join(value for name, value in scope["headers"] if name == _ACCEPT)
    return [kind for part in values.split(b",") if (kind := part.partition(b";")[0].strip().lower())]
