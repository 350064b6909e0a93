"""The five tools of microsandbox (contract section 1.7), over `cove.compat.microsandbox`."""

import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from cove.compat.microsandbox.config import SandboxConfig
from cove.compat.microsandbox.metrics import MetricsResult, metrics
from cove.compat.microsandbox.names import named
from cove.compat.microsandbox.running import (
    DEFAULT_SECONDS,
    CodeResult,
    CommandResult,
    Outcome,
    OutputLimit,
    language_of,
    run_code,
    run_command,
)
from cove.compat.microsandbox.sandboxes import NamedSandboxes
from cove.mcp.output import DEFAULT_CHARACTERS, printed, shown
from cove.mcp.progress import reported
from cove.mcp.tool import Answer, AnyTool, Arguments, Call, Effect, Result, Tool
from cove.mcp.tools.hopx_arguments import Code, OutputCharacters, WaitedSeconds
from cove.models.errors import CoveError
from cove.models.scopes import EVERY_NAMESPACE, Scope
from cove.sdk import AsyncSandbox

_MAX_LINES = 2000
_MAX_ARGUMENTS = 10_000


def _without(*hidden: str) -> Callable[[dict[str, Any]], None]:
    """Fields that are taken, for clients that send them, and not listed."""

    def leave_out(schema: dict[str, Any]) -> None:
        for name in hidden:
            schema["properties"].pop(name, None)

    return leave_out


def _name(what: str) -> AfterValidator:
    def check(text: str) -> str:
        try:
            return named(what, text)
        except CoveError as refusal:
            raise ValueError(str(refusal)) from None

    return AfterValidator(check)


def _namespace_or_all(text: str) -> str:
    return text if text == EVERY_NAMESPACE else named("namespace", text)


def _known(language: str) -> str:
    try:
        language_of(language)
    except CoveError as refusal:
        raise ValueError(str(refusal)) from None
    return language


SandboxName = Annotated[str, _name("sandbox")]
Namespace = Annotated[str, _name("namespace")]
_TEXTS = {"type": "array", "items": {"type": "string"}}
_CONFIG_SCHEMA = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "description": "microsandbox/python (default), microsandbox/node, or a template"},
        "memory": {"type": "integer", "description": "MiB"},
        "cpus": {"type": "integer"},
        "volumes": {**_TEXTS, "description": "HOST:SANDBOX"},
        "ports": {**_TEXTS, "description": "HOST:SANDBOX"},
        "envs": {**_TEXTS, "description": "NAME=value"},
    },
}


class NamedArguments(Arguments):
    """Of tools about one sandbox."""

    sandbox: SandboxName
    namespace: Namespace | None = Field(default=None, description="Default: default")


class StartArguments(NamedArguments):
    """Of `sandbox_start`."""

    config: Annotated[SandboxConfig | None, WithJsonSchema(_CONFIG_SCHEMA)] = None


class RunCodeArguments(NamedArguments):
    """Of `sandbox_run_code`."""

    model_config = ConfigDict(json_schema_extra=_without("timeout", "max_output_chars"))

    code: Code
    language: Annotated[str, AfterValidator(_known)] = Field(description="python or nodejs")
    timeout: WaitedSeconds | None = None
    max_output_chars: OutputCharacters = DEFAULT_CHARACTERS


class RunCommandArguments(NamedArguments):
    """Of `sandbox_run_command`."""

    model_config = ConfigDict(json_schema_extra=_without("timeout", "max_output_chars"))

    command: Annotated[str, Field(min_length=1)]
    args: Annotated[list[str], Field(max_length=_MAX_ARGUMENTS)] | None = None
    timeout: WaitedSeconds | None = None
    max_output_chars: OutputCharacters = DEFAULT_CHARACTERS


class MetricsArguments(Arguments):
    """Of `sandbox_get_metrics`."""

    namespace: Annotated[str, AfterValidator(_namespace_or_all)] | None = Field(
        default=None, description="Default: default. * is all."
    )
    sandbox: SandboxName | None = None


class Said(Result):
    """Of tools that answer with a sentence."""

    message: str


async def sandbox_start(call: Call, arguments: StartArguments) -> Answer:
    """Have it run."""
    return _sentence(await _sandboxes(call, arguments).start(arguments.sandbox, arguments.config))


async def sandbox_stop(call: Call, arguments: NamedArguments) -> Answer:
    """End what runs in it."""
    return _sentence(await _sandboxes(call, arguments).stop(arguments.sandbox))


async def sandbox_run_code(call: Call, arguments: RunCodeArguments) -> Answer:
    """Run code in its interpreter."""
    sandbox = await _sandboxes(call, arguments).running(arguments.sandbox)
    async with reported(call, arguments.language, seconds=arguments.timeout or DEFAULT_SECONDS) as watch:
        result = await run_code(
            sandbox,
            arguments.code,
            language=arguments.language,
            timeout=arguments.timeout,
            limit=_limit(arguments.max_output_chars, sandbox),
            watch=watch,
        )
    return _object(result).with_meta(isolation=str(sandbox.isolation))


async def sandbox_run_command(call: Call, arguments: RunCommandArguments) -> Answer:
    """Run a program in it."""
    sandbox = await _sandboxes(call, arguments).running(arguments.sandbox)
    async with reported(call, arguments.command, seconds=arguments.timeout or DEFAULT_SECONDS) as watch:
        result = await run_command(
            sandbox,
            arguments.command,
            arguments.args or (),
            timeout=arguments.timeout,
            limit=_limit(arguments.max_output_chars, sandbox),
            watch=watch,
        )
    return _object(result).with_meta(isolation=str(sandbox.isolation))


async def sandbox_get_metrics(call: Call, arguments: MetricsArguments) -> Answer:
    """Look at them."""
    return _object(await metrics(call.caller.control, arguments.namespace, arguments.sandbox))


def _sandboxes(call: Call, arguments: NamedArguments) -> NamedSandboxes:
    return NamedSandboxes(call.caller.control, arguments.namespace)


def _limit(characters: int, sandbox: AsyncSandbox) -> OutputLimit:
    """What is longer lies in a file of the sandbox, from which the tail is read."""

    async def shortened(outcome: Outcome, stream: str) -> str:
        return await shown(printed(outcome, stream), characters, sandbox=sandbox, lasting=True)

    return OutputLimit(bytes=characters, characters=2 * characters, lines=_MAX_LINES, shortened=shortened)


def _sentence(message: str) -> Answer:
    """The server of old answered with a JSON text that is a string, which structured content cannot be."""
    return Answer(Said(message=message), text=json.dumps(message, ensure_ascii=False))


def _object(result: BaseModel) -> Answer:
    plain = result.model_dump(mode="json")
    return Answer(plain, text=json.dumps(plain, indent=2, ensure_ascii=False))


_tool = partial(Tool[Any], open_world=True, scope=Scope.EXEC)

TOOLS: tuple[AnyTool, ...] = (
    _tool(
        name="sandbox_start",
        title="Start a named sandbox",
        description="Start a sandbox under a name of your choice, before anything else is done with it; one that was "
        "stopped has its files again. Call sandbox_stop when you are done.",
        arguments=StartArguments,
        result=Said,
        effect=Effect.ADDS,
        idempotent=True,
        open_world=False,
        run=sandbox_start,
    ),
    _tool(
        name="sandbox_stop",
        title="Stop a named sandbox",
        description="End everything that runs in a named sandbox. Its files are kept for a later sandbox_start.",
        arguments=NamedArguments,
        result=Said,
        effect=Effect.CHANGES,
        idempotent=True,
        open_world=False,
        run=sandbox_stop,
    ),
    _tool(
        name="sandbox_run_code",
        title="Run code in a named sandbox",
        description="Run code in a started sandbox. Variables and imports stay until it is stopped. An exception is "
        "status error, with the traceback on stderr.",
        arguments=RunCodeArguments,
        result=CodeResult,
        effect=Effect.CHANGES,
        idempotent=False,
        run=sandbox_run_code,
    ),
    _tool(
        name="sandbox_run_command",
        title="Run a program in a named sandbox",
        description="Run one program with its args in a started sandbox, without a shell; for shell text: command "
        'bash, args ["-c", TEXT].',
        arguments=RunCommandArguments,
        result=CommandResult,
        effect=Effect.CHANGES,
        idempotent=False,
        run=sandbox_run_command,
    ),
    _tool(
        name="sandbox_get_metrics",
        title="Look at named sandboxes",
        description="Whether named sandboxes run, and their processor load (%), memory (MiB) and disk (bytes): one, "
        "those of a namespace, or of all.",
        arguments=MetricsArguments,
        result=MetricsResult,
        effect=Effect.READS,
        idempotent=True,
        open_world=False,
        scope=Scope.READ,
        run=sandbox_get_metrics,
    ),
)
