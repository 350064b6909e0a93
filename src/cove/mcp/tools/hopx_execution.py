"""Running code and waiting for it (contract section 5)."""

from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Any

from pydantic import Field, model_validator

from cove.mcp.tool import Answer, AnyTool, Arguments, Call, Effect, Result, Tool, plain
from cove.mcp.tools import hopx_background, hopx_rich
from cove.mcp.tools.hopx_arguments import (
    OUTPUT_CHARACTERS,
    BackgroundSeconds,
    Code,
    InSandbox,
    Language,
    OutputCharacters,
    ProcessLabel,
    Region,
    SandboxId,
    Template,
    Variables,
    WaitedSeconds,
)
from cove.mcp.tools.hopx_older_names import current_names
from cove.mcp.tools.hopx_reaching import answered
from cove.mcp.tools.hopx_running import ProgramResult, described, own_sandbox, run_watched
from cove.sdk import AsyncSandbox

_LIFETIME_MARGIN_SECONDS = 60
_WORKSPACE = "/workspace"
_TEMPLATE = "code-interpreter"


class Mode(StrEnum):
    """Where and how code runs."""

    ISOLATED = "isolated"
    PERSISTENT = "persistent"
    RICH = "rich"
    BACKGROUND = "background"


class IsolatedArguments(Arguments):
    """Of `execute_code_isolated`."""

    code: Code
    language: Language = Field(default="python", description="python, javascript, bash or go")
    timeout: WaitedSeconds = Field(default=30, description="Seconds.")
    env: Variables | None = None
    template_name: Template = _TEMPLATE
    region: Region = None
    max_output_chars: OutputCharacters = OUTPUT_CHARACTERS


class PersistentArguments(InSandbox):
    """Of `execute_code_persistent`."""

    code: Code
    language: Language = "python"
    timeout: WaitedSeconds = 30
    env: Variables | None = None
    working_dir: str | None = None
    max_output_chars: OutputCharacters = OUTPUT_CHARACTERS


class CodeArguments(Arguments):
    """Of `execute_code`."""

    code: Code
    mode: Mode | None = Field(default=None, description="Default: persistent with sandbox_id, else isolated.")
    sandbox_id: SandboxId | None = None
    language: Language = "python"
    timeout: BackgroundSeconds = Field(default=30, description="At most 300 unless background.")
    env: Variables | None = None
    working_dir: str | None = None
    name: ProcessLabel | None = None
    template_name: Template = _TEMPLATE
    region: Region = None
    max_output_chars: OutputCharacters = OUTPUT_CHARACTERS

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, given: Any) -> Any:
        return current_names(given, sandbox="sandbox_id")

    @model_validator(mode="after")
    def _fits(self) -> "CodeArguments":
        if self.in_force is not Mode.BACKGROUND and self.timeout > 300:
            raise ValueError("timeout: at most 300 in this mode; mode='background' takes longer")
        if self.in_force is not Mode.ISOLATED and self.sandbox_id is None:
            raise ValueError(f"sandbox_id: mode={self.in_force} needs one; create_sandbox gives it")
        return self

    @property
    def in_force(self) -> Mode:
        """The mode that was asked for, or that follows from the rest."""
        return self.mode or (Mode.ISOLATED if self.sandbox_id is None else Mode.PERSISTENT)


class CodeResult(ProgramResult):
    """Of the tools that run code and wait for it."""

    mode: Mode
    note: str | None = Field(default=None, serialization_alias="_note")


class AnyModeResult(Result):
    """Of `execute_code`: which fields there are depends on the mode."""

    mode: Mode
    sandbox_id: str
    stdout: str | None = None
    stderr: str | None = None
    exit_code: int | None = None
    execution_time: float | None = None
    success: bool | None = None


async def execute_code_isolated(call: Call, arguments: IsolatedArguments) -> Answer:
    """Create, run, destroy; destroyed also when the client goes away."""
    return await _isolated(call, arguments, working_dir=_WORKSPACE)


async def execute_code_persistent(call: Call, arguments: PersistentArguments) -> Answer:
    """Run where variables and files stay."""
    return await _persistent(call, arguments.sandbox_id, arguments, mode=Mode.PERSISTENT)


async def execute_code(call: Call, arguments: CodeArguments) -> Answer:
    """Run in the mode that was asked for."""
    if arguments.sandbox_id is None:
        return await _isolated(call, arguments, working_dir=arguments.working_dir or _WORKSPACE)
    shared = arguments.model_dump(include={"code", "language", "timeout", "env", "working_dir"})
    match arguments.in_force:
        case Mode.RICH:
            taken = hopx_rich.RichArguments(
                sandbox_id=arguments.sandbox_id,
                max_output_chars=arguments.max_output_chars,
                **{name: value for name, value in shared.items() if value is not None},
            )
            return await hopx_rich.execute_code_rich(call, taken)
        case Mode.BACKGROUND:
            started = hopx_background.BackgroundArguments(
                sandbox_id=arguments.sandbox_id, name=arguments.name, **shared
            )
            return _in_background(await hopx_background.execute_code_background(call, started))
        case mode:
            return await _persistent(call, arguments.sandbox_id, arguments, mode=mode)


async def _isolated(call: Call, arguments: IsolatedArguments | CodeArguments, *, working_dir: str) -> Answer:
    lifetime = int(arguments.timeout) + _LIFETIME_MARGIN_SECONDS
    options = {"region": arguments.region, "timeout_seconds": lifetime}
    async with own_sandbox(call, arguments.template_name, **options) as own:
        fields = await _run(call, own.sandbox, arguments, working_dir=working_dir, lasting=False)
    note = "The sandbox was destroyed." if own.destroyed else "The sandbox could not be destroyed; it ends by itself."
    return Answer(CodeResult(mode=Mode.ISOLATED, note=note, **fields)).with_meta(isolation=str(own.sandbox.isolation))


async def _persistent(
    call: Call, sandbox_id: str, arguments: PersistentArguments | CodeArguments, *, mode: Mode
) -> Answer:
    async def use(sandbox: AsyncSandbox) -> Answer:
        fields = await _run(call, sandbox, arguments, working_dir=arguments.working_dir, lasting=True)
        return Answer(CodeResult(mode=mode, **fields))

    return await answered(call, sandbox_id, use)


async def _run(
    call: Call,
    sandbox: AsyncSandbox,
    arguments: IsolatedArguments | PersistentArguments | CodeArguments,
    *,
    working_dir: str | None,
    lasting: bool,
) -> dict[str, Any]:
    start = partial(
        sandbox.run_code,
        arguments.code,
        language=arguments.language,
        timeout=arguments.timeout,
        env=arguments.env,
        working_dir=working_dir or None,
    )
    characters = arguments.max_output_chars
    result = await run_watched(call, start, what=arguments.language, timeout=arguments.timeout, characters=characters)
    return await described(result, sandbox, timeout=arguments.timeout, characters=characters, lasting=lasting)


def _in_background(answer: Answer) -> Answer:
    return replace(answer, structured={"mode": Mode.BACKGROUND.value, **plain(answer.structured)})


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="execute_code_isolated",
        title="Run code once",
        description="Run a program in a new sandbox that is destroyed afterwards, and return what it printed.",
        arguments=IsolatedArguments,
        result=CodeResult,
        effect=Effect.ADDS,
        idempotent=False,
        open_world=True,
        run=execute_code_isolated,
    ),
    Tool(
        name="execute_code",
        title="Run code",
        description="Run code: mode isolated (new sandbox, destroyed afterwards), persistent (in sandbox_id, keeps "
        "variables), rich (also plots and tables), background (returns at once).",
        arguments=CodeArguments,
        result=AnyModeResult,
        effect=Effect.CHANGES,
        idempotent=False,
        open_world=True,
        run=execute_code,
    ),
    Tool(
        name="execute_code_persistent",
        title="Run code in a sandbox",
        description="Run code in a sandbox. Variables, imports and files stay for the next call.",
        arguments=PersistentArguments,
        result=CodeResult,
        effect=Effect.CHANGES,
        idempotent=False,
        open_world=True,
        run=execute_code_persistent,
    ),
)
