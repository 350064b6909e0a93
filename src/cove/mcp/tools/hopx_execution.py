"""Running code (contract section 5)."""

import asyncio

from pydantic import Field

from cove.mcp.output import DEFAULT_CHARACTERS, shortened
from cove.mcp.tool import Answer, AnyTool, Arguments, Call, Effect, Result, Tool
from cove.models.scopes import Scope

_LIFETIME_MARGIN_SECONDS = 60


class IsolatedArguments(Arguments):
    """Of `execute_code_isolated`."""

    code: str
    language: str = Field(default="python", description="python, javascript, bash or go")
    timeout: float = Field(default=30, gt=0, le=300, description="Seconds.")
    env: dict[str, str] | None = None
    template_name: str = "code-interpreter"
    region: str | None = None


class IsolatedResult(Result):
    """Of `execute_code_isolated`."""

    stdout: str
    stderr: str
    exit_code: int
    execution_time: float
    sandbox_id: str
    note: str = Field(serialization_alias="_note")


async def execute_code_isolated(call: Call, arguments: IsolatedArguments) -> Answer:
    """Create, run, destroy; destroyed also when the client goes away."""
    lifetime = int(arguments.timeout) + _LIFETIME_MARGIN_SECONDS
    sandbox = await call.caller.create(arguments.template_name, region=arguments.region, timeout_seconds=lifetime)
    try:
        result = await sandbox.run_code(
            arguments.code, language=arguments.language, timeout=arguments.timeout, env=arguments.env
        )
    finally:
        await asyncio.shield(call.caller.control.kill(sandbox.sandbox_id))
        call.caller.forget(sandbox.sandbox_id)
    rest = "the sandbox is gone, so print less or use create_sandbox"
    return Answer(
        IsolatedResult(
            stdout=shortened(result.stdout, DEFAULT_CHARACTERS, rest=rest),
            stderr=shortened(result.stderr, DEFAULT_CHARACTERS, rest=rest),
            exit_code=result.exit_code,
            execution_time=result.execution_time,
            sandbox_id=sandbox.sandbox_id,
            note="The sandbox was destroyed.",
        )
    )


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="execute_code_isolated",
        title="Run code once",
        description="Run a program in a new sandbox that is destroyed afterwards, and return what it printed.",
        arguments=IsolatedArguments,
        result=IsolatedResult,
        effect=Effect.ADDS,
        idempotent=False,
        open_world=True,
        scope=Scope.EXEC,
        run=execute_code_isolated,
    ),
)
