"""The server that the conformance suite wants to find: tools, prompts and resources under its names."""

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    AudioContent,
    BlobResourceContents,
    CallToolRequestParams,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    ImageContent,
    InputRequiredResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListRootsRequest,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    Tool,
    UnsubscribeRequestParams,
)
from tests.interop.mcp import fixture_tools as tools

Context = ServerRequestContext[Any, Any]

_TEXT = {"type": "string"}
_PICTURE = ImageContent(data=tools.png(), mime_type="image/png")
_SOUND = AudioContent(data=tools.wav(), mime_type="audio/wav")
_NAME = tools.asked("What is your name?", name=_TEXT)
_STATE = "what the first round knew"
_DEFAULTS: dict[str, Any] = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
_TITLED = [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)]
_OPTIONS = ["option1", "option2", "option3"]
_ENUMS: dict[str, Any] = {
    "untitledSingle": {"type": "string", "enum": _OPTIONS},
    "titledSingle": {"type": "string", "oneOf": _TITLED},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
}
_EVERY_KEYWORD: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": _TEXT, "city": _TEXT}}},
    "properties": {
        "name": _TEXT,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": _TEXT,
        "email": _TEXT,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
_MIRRORED: dict[str, Any] = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
_SCHEMAS = {"json_schema_2020_12_tool": _EVERY_KEYWORD, "test_mirrored_parameter": _MIRRORED}


def build_fixture() -> Server[Any]:
    """A server with everything that any scenario of the suite asks for."""
    bus = InMemorySubscriptionBus()
    runs = {**_plain_tools(), **_asking_tools(), **_rounds()}
    runs["test_trigger_tool_change"] = tools.announcing(bus, ToolsListChanged())
    runs["test_trigger_prompt_change"] = tools.announcing(bus, PromptsListChanged())
    methods = _Methods(runs)
    server: Server[Any] = Server(
        "fixture",
        version="1",
        on_list_tools=methods.list_tools,
        on_call_tool=methods.call_tool,
        on_list_prompts=methods.list_prompts,
        on_get_prompt=methods.get_prompt,
        on_list_resources=methods.list_resources,
        on_list_resource_templates=methods.list_resource_templates,
        on_read_resource=methods.read_resource,
        on_subscribe_resource=methods.subscribe,
        on_unsubscribe_resource=methods.unsubscribe,
        on_subscriptions_listen=ListenHandler(bus),
        on_completion=methods.complete,
    )
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, methods.set_level)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience="fixture"))
    return server


def _plain_tools() -> dict[str, tools.Run]:
    embedded = tools.resource("test://embedded-resource", "This is an embedded resource content.")
    mixed = tools.resource("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    failure = "This tool intentionally returns an error for testing"
    return {
        "test_simple_text": tools.always("This is a simple text response for testing."),
        "test_image_content": tools.always(_PICTURE),
        "test_audio_content": tools.always(_SOUND),
        "test_embedded_resource": tools.always(embedded),
        "test_multiple_content_types": tools.always("Multiple content types test:", _PICTURE, mixed),
        "test_error_handling": tools.always(failure, is_error=True),
        "test_tool_with_logging": tools.log,
        "test_logging_tool": tools.log,
        "test_tool_with_progress": tools.progress,
        "test_missing_capability": tools.without_capability,
        **{name: tools.always("fine") for name in _SCHEMAS},
    }


def _asking_tools() -> dict[str, tools.Run]:
    """Of the older revisions, whose servers may send requests."""
    user = {
        "username": {**_TEXT, "description": "User's response"},
        "email": {**_TEXT, "description": "User's email address"},
    }
    return {
        "test_sampling": tools.sample,
        "test_elicitation": tools.elicit("Who are you?", user, "User response"),
        "test_elicitation_sep1034_defaults": tools.elicit("Is this right?", _DEFAULTS, "Elicitation completed"),
        "test_elicitation_sep1330_enums": tools.elicit("Choose.", _ENUMS, "Elicitation completed"),
    }


def _rounds() -> dict[str, tools.Run]:
    """Of the newest revision, where what is asked for is in the result."""
    confirm = {"confirm": tools.asked("Please confirm", ok={"type": "boolean"})}
    roots = ListRootsRequest()
    three = {"user_name": _NAME, "greeting": tools.sampled("Generate a greeting", 50), "client_roots": roots}
    named = tools.needs_input({"user_name": _NAME}, lambda given: f"Hello, {given['user_name'].content['name']}!")
    return {
        "test_input_required_result_elicitation": named,
        "test_streaming_elicitation": named,
        "test_input_required_result_sampling": tools.needs_input(
            {"capital_question": tools.sampled("What is the capital of France?")},
            lambda given: str(given["capital_question"].content),
        ),
        "test_input_required_result_list_roots": tools.needs_input(
            {"client_roots": roots}, lambda given: ", ".join(str(root.uri) for root in given["client_roots"].roots)
        ),
        "test_input_required_result_request_state": tools.needs_input(confirm, lambda given: "state-ok", _STATE),
        "test_input_required_result_tampered_state": tools.needs_input(confirm, lambda given: "state-ok", _STATE),
        "test_input_required_result_multiple_inputs": tools.needs_input(three, lambda given: "all came", _STATE),
        "test_input_required_result_multi_round": tools.multi_round,
        "test_input_required_result_capabilities": tools.by_capability,
    }


class _Methods:
    def __init__(self, runs: dict[str, tools.Run]) -> None:
        self._runs = runs

    async def list_tools(self, context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(
            tools=[
                Tool(name=name, description=f"{name} of the suite", input_schema=_SCHEMAS.get(name, {"type": "object"}))
                for name in self._runs
            ]
        )

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> tools.Answer:
        run = self._runs.get(params.name)
        if run is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
        return await run(context, params)

    async def list_prompts(self, context: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        two = [PromptArgument(name=name, description=name, required=True) for name in ("arg1", "arg2")]
        uri = [PromptArgument(name="resourceUri", description="what to embed", required=True)]
        named = {
            "test_simple_prompt": None,
            "test_prompt_with_arguments": two,
            "test_prompt_with_embedded_resource": uri,
            "test_prompt_with_image": None,
            "test_input_required_result_prompt": None,
        }
        return ListPromptsResult(
            prompts=[Prompt(name=name, description=name, arguments=arguments) for name, arguments in named.items()]
        )

    async def get_prompt(
        self, context: Context, params: GetPromptRequestParams
    ) -> GetPromptResult | InputRequiredResult:
        given = params.arguments or {}
        match params.name:
            case "test_simple_prompt":
                return _prompt("This is a simple prompt for testing.")
            case "test_prompt_with_arguments":
                return _prompt(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")
            case "test_prompt_with_embedded_resource":
                embedded = tools.resource(given["resourceUri"], "Embedded resource content for testing.")
                return _prompt(embedded, "Please process the embedded resource above.")
            case "test_prompt_with_image":
                return _prompt(_PICTURE, "Please analyze the image above.")
            case "test_input_required_result_prompt":
                if params.input_responses:
                    return _prompt("With your context.")
                asked = tools.asked("What context should the prompt use?", context=_TEXT)
                return InputRequiredResult(input_requests={"user_context": asked})
            case _:
                raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")

    async def list_resources(self, context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        return ListResourcesResult(
            resources=[
                Resource(uri=f"test://{name}", name=name, description=name, mime_type=kind)
                for name, kind in {"static-text": "text/plain", "static-binary": "image/png"}.items()
            ]
        )

    async def list_resource_templates(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        shape = ResourceTemplate(uri_template="test://template/{id}/data", name="data", description="data of an id")
        return ListResourceTemplatesResult(resource_templates=[shape])

    async def read_resource(self, context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri = params.uri
        if uri == "test://static-binary":
            return ReadResourceResult(contents=[BlobResourceContents(uri=uri, mime_type="image/png", blob=tools.png())])
        if uri == "test://static-text":
            return _read(uri, "This is the content of the static text resource.", "text/plain")
        number = uri.removeprefix("test://template/").removesuffix("/data")
        if uri != f"test://template/{number}/data":
            raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})
        text = f'{{"id":"{number}","templateTest":true,"data":"Data for ID: {number}"}}'
        return _read(uri, text, "application/json")

    async def subscribe(self, context: Context, params: SubscribeRequestParams) -> EmptyResult:
        return EmptyResult()

    async def unsubscribe(self, context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        return EmptyResult()

    async def set_level(self, context: Context, params: SetLevelRequestParams) -> EmptyResult:
        return EmptyResult()

    async def complete(self, context: Context, params: CompleteRequestParams) -> CompleteResult:
        words = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
        return CompleteResult(completion=Completion(values=words, total=len(words), has_more=False))


def _prompt(*content: TextContent | ImageContent | Any) -> GetPromptResult:
    blocks = [TextContent(text=part) if isinstance(part, str) else part for part in content]
    return GetPromptResult(messages=[PromptMessage(role="user", content=block) for block in blocks])


def _read(uri: str, text: str, mime_type: str) -> ReadResourceResult:
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=mime_type, text=text)])
