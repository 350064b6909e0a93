# Generated from src/cove/sdk/_async/streaming.py by tools/generate_sync_sdk.py. Do not edit.

"""Programs whose output is read while they run."""

from collections.abc import Generator
from contextlib import closing

from cove.sdk._events import Events, ExecutionEvent, ResultEvent, broke_off
from cove.sdk._requests import Call
from cove.sdk._results import Execution
from cove.sdk._sync.agent import AgentLink
from cove.sdk._sync.primitives import TextCallback, tell


def event_stream(link: AgentLink, call: Call) -> Generator[ExecutionEvent, None]:
    """The events that answer `call`, as they come; the result is the last.

    Raises:
        CoveError: the platform failed, or the stream ended without a result.
    """
    events, finished = Events(), False
    with link.stream(call) as pieces:
        for piece in pieces:
            for event in events.feed(piece):
                finished = finished or isinstance(event, ResultEvent)
                yield event
    if not finished:
        raise broke_off()


def run_to_end(
    link: AgentLink, call: Call, *, on_stdout: TextCallback | None, on_stderr: TextCallback | None
) -> Execution:
    """The result that ends the stream; the callbacks are told of the rest. When one of them raises, the stream is
    closed, which ends the program.
    """
    result: Execution | None = None
    with closing(event_stream(link, call)) as events:
        for event in events:
            if isinstance(event, ResultEvent):
                result = event.result
            else:
                tell(on_stdout if event.type == "stdout" else on_stderr, event.data)
    if result is None:
        raise broke_off()
    return result
