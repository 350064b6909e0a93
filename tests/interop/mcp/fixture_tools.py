"""The tools that the conformance suite calls by name. Each does what the suite's description of its scenario says."""

import base64
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import PromptsListChanged, SubscriptionBus, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    InputRequest,
    InputRequiredResult,
    ListRootsResult,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)

Context = ServerRequestContext[Any, Any]
Answer = CallToolResult | InputRequiredResult
Run = Callable[[Context, CallToolRequestParams], Awaitable[Answer]]


def png() -> str:
    """One red pixel, as base64 text."""
    rows = zlib.compress(b"\0\xff\0\0")
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def wav() -> str:
    """Eight samples of silence, as base64 text."""
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 8) + b"\x80" * 8
    return base64.b64encode(b"RIFF" + struct.pack("<I", len(body)) + body).decode()


def said(*content: ContentBlock | str, is_error: bool = False) -> CallToolResult:
    """An answer of these parts."""
    blocks = [TextContent(text=part) if isinstance(part, str) else part for part in content]
    return CallToolResult(content=blocks, is_error=is_error)


def resource(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    """A resource that lies in the answer."""
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def asked(message: str, **fields: Mapping[str, Any]) -> ElicitRequest:
    """A form for the user; all fields are required."""
    schema: dict[str, Any] = {"type": "object", "properties": fields, "required": [*fields]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sampled(text: str, tokens: int = 100) -> CreateMessageRequest:
    """A question to the client's model."""
    message = SamplingMessage(role="user", content=TextContent(text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=tokens))


def always(*content: ContentBlock | str, is_error: bool = False) -> Run:
    """A tool that answers the same every time."""

    async def run(context: Context, params: CallToolRequestParams) -> Answer:
        return said(*content, is_error=is_error)

    return run


async def log(context: Context, params: CallToolRequestParams) -> Answer:
    """Three lines of log, where the client wants them."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        # Deprecated, but what the suite still checks.
        await context.session.send_log_message("info", line, related_request_id=context.request_id)  # pyright: ignore[reportDeprecated]
    return said("logged")


async def progress(context: Context, params: CallToolRequestParams) -> Answer:
    """Nothing, half, all."""
    for done in (0, 50, 100):
        await context.session.report_progress(done, 100)
    return said("done")


async def sample(context: Context, params: CallToolRequestParams) -> Answer:
    """Asks the client's model over the wire of the older revisions."""
    prompt = str((params.arguments or {}).get("prompt", ""))
    answer = await context.session.send_request(sampled(prompt), CreateMessageResult, metadata=related(context))
    return said(f"LLM response: {_text_of(answer)}")


def elicit(message: str, properties: Mapping[str, Any], told: str) -> Run:
    """Asks the user over the wire of the older revisions."""

    async def run(context: Context, params: CallToolRequestParams) -> Answer:
        text = str((params.arguments or {}).get("message", message))
        schema: dict[str, Any] = {"type": "object", "properties": dict(properties), "required": [*properties][:2]}
        answer = await context.session.elicit_form(text, schema, context.request_id)
        return said(f"{told}: action={answer.action}, content={answer.content}")

    return run


def needs_input(requests: Mapping[str, InputRequest], done: Callable[[Any], str], state: str | None = None) -> Run:
    """Asks with an interim result, until everything that was asked for has come in the shape that it must have."""

    async def run(context: Context, params: CallToolRequestParams) -> Answer:
        given = params.input_responses or {}
        if all(_answers(request, given.get(name)) for name, request in requests.items()):
            if state is not None and params.request_state != state:
                raise MCPError(INVALID_PARAMS, "The state is missing.")
            return said(done(given))
        return InputRequiredResult(input_requests=dict(requests), request_state=state)

    return run


async def multi_round(context: Context, params: CallToolRequestParams) -> Answer:
    """Two questions, one after the other; the state says where we are."""
    given = params.input_responses or {}
    if params.request_state == "second" and "step2" in given:
        return said("Both steps are done.")
    if params.request_state in ("first", "second") and ("step1" in given or params.request_state == "second"):
        question = asked("Step 2: What is your favorite color?", color={"type": "string"})
        return InputRequiredResult(input_requests={"step2": question}, request_state="second")
    question = asked("Step 1: What is your name?", name={"type": "string"})
    return InputRequiredResult(input_requests={"step1": question}, request_state="first")


async def by_capability(context: Context, params: CallToolRequestParams) -> Answer:
    """Asks only for what the client has declared."""
    if params.input_responses:
        return said("done")
    declared = context.session.client_capabilities
    requests: dict[str, InputRequest] = {}
    if declared and declared.sampling is not None:
        requests["sampled"] = sampled("What is the capital of France?")
    if declared and declared.elicitation is not None:
        requests["asked"] = asked("What is your name?", name={"type": "string"})
    return InputRequiredResult(input_requests=requests) if requests else said("nothing can be asked")


async def without_capability(context: Context, params: CallToolRequestParams) -> Answer:
    """Refuses clients that have no model to ask."""
    declared = context.session.client_capabilities
    if declared is None or declared.sampling is None:
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY, "sampling is needed", {"requiredCapabilities": {"sampling": {}}}
        )
    return said("fine")


def announcing(bus: SubscriptionBus, event: ToolsListChanged | PromptsListChanged) -> Run:
    """Tells those who listen that a list has changed."""

    async def run(context: Context, params: CallToolRequestParams) -> Answer:
        await bus.publish(event)
        return said("announced")

    return run


def related(context: Context) -> ServerMessageMetadata:
    """Where a request to the client goes: onto the stream of the call."""
    return ServerMessageMetadata(related_request_id=context.request_id)


def _text_of(answer: CreateMessageResult) -> str:
    return answer.content.text if isinstance(answer.content, TextContent) else "something else"


def _answers(request: InputRequest, given: Any) -> bool:
    if isinstance(request, ElicitRequest):
        return isinstance(given, ElicitResult) and given.content is not None
    return isinstance(given, CreateMessageResult if isinstance(request, CreateMessageRequest) else ListRootsResult)
