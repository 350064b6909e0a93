"""Programs whose output is read while they run."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._async.primitives import TextCallback, tell
from cove.sdk._events import Events, ExecutionEvent, ResultEvent, broke_off
from cove.sdk._requests import Call
from cove.sdk._results import Execution


async def event_stream(link: AsyncAgentLink, call: Call) -> AsyncGenerator[ExecutionEvent, None]:
    """The events that answer `call`, as they come; the result is the last.

    Raises:
        CoveError: the platform failed, or the stream ended without a result.
    """
    events, finished = Events(), False
    async with link.stream(call) as pieces:
        async for piece in pieces:
            for event in events.feed(piece):
                finished = finished or isinstance(event, ResultEvent)
                yield event
    if not finished:
        raise broke_off()


async def run_to_end(
    link: AsyncAgentLink, call: Call, *, on_stdout: TextCallback | None, on_stderr: TextCallback | None
) -> Execution:
    """The result that ends the stream; the callbacks are told of the rest. When one of them raises, the stream is
    closed, which ends the program.
    """
    result: Execution | None = None
    async with aclosing(event_stream(link, call)) as events:
        async for event in events:
            if isinstance(event, ResultEvent):
                result = event.result
            else:
                await tell(on_stdout if event.type == "stdout" else on_stderr, event.data)
    if result is None:
        raise broke_off()
    return result
