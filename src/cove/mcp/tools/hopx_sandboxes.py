"""Sandboxes: make, see, end (contract section 5)."""

from typing import Any

from pydantic import Field

from cove.mcp.tool import Answer, AnyTool, Arguments, Call, Effect, Result, Tool
from cove.models.scopes import Scope


class CreateArguments(Arguments):
    """Of `create_sandbox`."""

    template_id: str | int | None = None
    template_name: str | None = Field(default=None, description="Default: code-interpreter.")
    region: str | None = None
    timeout_seconds: int | None = Field(default=None, description="Until it is destroyed.")
    internet_access: bool | None = None
    env_vars: dict[str, str] | None = None


class CreatedResult(Result):
    """Of `create_sandbox`."""

    id: str
    status: str
    isolation: str


async def create_sandbox(call: Call, arguments: CreateArguments) -> Answer:
    """Start one."""
    options: dict[str, Any] = arguments.model_dump(exclude={"template_name"})
    sandbox = await call.caller.create(arguments.template_name, **options)
    return Answer(
        CreatedResult(id=sandbox.sandbox_id, status=str(sandbox.info.status), isolation=str(sandbox.isolation))
    )


class SandboxArguments(Arguments):
    """Of tools about one sandbox."""

    id: str


class DeletedResult(Result):
    """Of `delete_sandbox`."""

    id: str
    status: str = "deleted"


async def delete_sandbox(call: Call, arguments: SandboxArguments) -> Answer:
    """End one."""
    await call.caller.control.delete(arguments.id)
    call.caller.forget(arguments.id)
    return Answer(DeletedResult(id=arguments.id))


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="create_sandbox",
        title="Create a sandbox",
        description="Start a sandbox that keeps files and state between calls. Pass its id as sandbox_id.",
        arguments=CreateArguments,
        result=CreatedResult,
        effect=Effect.ADDS,
        idempotent=False,
        open_world=False,
        scope=Scope.EXEC,
        run=create_sandbox,
    ),
    Tool(
        name="delete_sandbox",
        title="Destroy a sandbox",
        description="End a sandbox and everything in it.",
        arguments=SandboxArguments,
        result=DeletedResult,
        effect=Effect.CHANGES,
        idempotent=True,
        open_world=False,
        scope=Scope.EXEC,
        run=delete_sandbox,
    ),
)
