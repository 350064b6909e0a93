"""Sandboxes: make, see, change, end (contract section 5)."""

from collections.abc import Set
from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from cove.mcp.bounds import fitting
from cove.mcp.tool import Answer, AnyTool, Arguments, Call, Effect, Result, Tool
from cove.mcp.tools.hopx_arguments import InSandbox, LifetimeSeconds, Number, OfSandbox, Region, Template, Variables
from cove.models.errors import error
from cove.models.sandboxes import SandboxInfo, SandboxStatus
from cove.models.scopes import Scope
from cove.sdk import AsyncSandbox

_CREATED = frozenset(
    {
        *("id", "status", "direct_url", "auth_token", "template_id", "template_name", "region"),
        *("created_at", "expires_at", "timeout_seconds", "internet_access", "isolation"),
    }
)


class CreateArguments(Arguments):
    """Of `create_sandbox`."""

    template_id: str | int | None = None
    template_name: Template | None = Field(default=None, description="Default: code-interpreter.")
    region: Region = None
    timeout_seconds: LifetimeSeconds | None = Field(default=None, description="Lifetime; default: the server's.")
    internet_access: bool | None = None
    env_vars: Variables | None = None


class SandboxResult(Result):
    """A sandbox, under both names of its id."""

    model_config = ConfigDict(extra="allow")

    id: str
    status: str
    isolation: str
    expires_at: str | None = None


class CreatedResult(Result):
    """Of `create_sandbox`: these, and what else `_CREATED` names."""

    model_config = ConfigDict(extra="allow")

    id: str
    status: str
    direct_url: str
    auth_token: str
    expires_at: datetime | None


class ListArguments(Arguments):
    """Of `list_sandboxes`."""

    limit: Annotated[int, Field(ge=1, le=1000), Number] = 100
    status: SandboxStatus | None = None
    region: Region = None


class ListResult(Result):
    """Of `list_sandboxes`."""

    data: list[dict[str, Any]]
    count: int
    has_more: bool


class DeletedResult(Result):
    """Of `delete_sandbox`."""

    status: str = "deleted"
    id: str


class TimeoutArguments(OfSandbox):
    """Of `update_sandbox_timeout`."""

    timeout_seconds: LifetimeSeconds = Field(description="From now.")


class TimeoutResult(Result):
    """Of `update_sandbox_timeout`."""

    id: str
    timeout_seconds: int
    status: str = "updated"
    expires_at: datetime | None


class PortArguments(InSandbox):
    """Of `get_preview_url`."""

    port: Annotated[int, Field(ge=1, le=65535), Number]


class PreviewResult(Result):
    """Of `get_preview_url`."""

    preview_url: str
    port: int
    sandbox_id: str


class AgentUrlResult(Result):
    """Of `get_agent_url`."""

    agent_url: str
    sandbox_id: str


async def create_sandbox(call: Call, arguments: CreateArguments) -> Answer:
    """Start one that stays."""
    options: dict[str, Any] = arguments.model_dump(exclude={"template_id", "template_name"})
    name, number = _template(arguments)
    info = (await call.caller.create(name, template_id=number, **options)).info
    created = CreatedResult.model_validate(info.model_dump(include={*_CREATED}))
    return Answer(created, meta={"isolation": str(info.isolation)})


def _template(arguments: CreateArguments) -> tuple[str | None, str | int | None]:
    """Name and id, one of the two; a name in the place of the id is taken as one."""
    number, name = arguments.template_id, arguments.template_name
    if isinstance(number, str) and not number.isdecimal():
        if name not in (None, number):
            raise error("INVALID_REQUEST", "template_id and template_name differ.", remedy="Give one of them.")
        return number or name, None
    return name, number


async def list_sandboxes(call: Call, arguments: ListArguments) -> Answer:
    """Those that the caller may see."""
    page = await call.caller.control.page(status=arguments.status, region=arguments.region, limit=arguments.limit)
    rows = fitting(described(info, but={"isolation_summary"}) for info in page.data)
    more = page.has_more or len(rows) < len(page.data)
    return Answer(ListResult(data=rows, count=len(rows), has_more=more))


async def get_sandbox(call: Call, arguments: OfSandbox) -> Answer:
    """One of them, as it is."""
    return _answer(await call.caller.control.get(arguments.id))


async def delete_sandbox(call: Call, arguments: OfSandbox) -> Answer:
    """End one with everything in it."""
    call.caller.forget(arguments.id)
    await call.caller.control.delete(arguments.id)
    return Answer(DeletedResult(id=arguments.id))


async def update_sandbox_timeout(call: Call, arguments: TimeoutArguments) -> Answer:
    """Move its deadline."""
    moved = await call.caller.control.set_timeout(arguments.id, arguments.timeout_seconds)
    return Answer(TimeoutResult(id=moved.id, timeout_seconds=moved.timeout_seconds, expires_at=moved.expires_at))


async def pause_sandbox(call: Call, arguments: OfSandbox) -> Answer:
    """Freeze everything in it."""
    await call.caller.control.pause(arguments.id)
    return _answer(await call.caller.control.get(arguments.id))


async def resume_sandbox(call: Call, arguments: OfSandbox) -> Answer:
    """Thaw it."""
    await call.caller.control.resume(arguments.id)
    return _answer(await call.caller.control.get(arguments.id))


async def get_preview_url(call: Call, arguments: PortArguments) -> Answer:
    """Where a program in it is reached from outside."""
    sandbox = AsyncSandbox(await call.caller.control.get(arguments.sandbox_id), call.caller.control)
    url = await sandbox.get_open_preview_url(arguments.port)
    return Answer(PreviewResult(preview_url=url, port=arguments.port, sandbox_id=arguments.sandbox_id))


async def get_agent_url(call: Call, arguments: InSandbox) -> Answer:
    """Where its agent is."""
    info = await call.caller.control.get(arguments.sandbox_id)
    return Answer(AgentUrlResult(agent_url=info.public_host, sandbox_id=info.id))


def described(info: SandboxInfo, *, but: Set[str] = frozenset()) -> dict[str, Any]:
    """A sandbox for a model: what is set, and nothing twice but its id, which has two names."""
    left_out = {"object", "public_host", "live_mode", "request_id", *but}
    fields = info.model_dump(mode="json", exclude_none=True, exclude=left_out)
    return {"sandbox_id": info.id, **fields}


def _answer(info: SandboxInfo) -> Answer:
    return Answer(described(info), meta={"isolation": str(info.isolation)})


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="create_sandbox",
        title="Create a sandbox",
        description="Start a sandbox that keeps files and state; pass its id as sandbox_id to other tools.",
        arguments=CreateArguments,
        result=CreatedResult,
        effect=Effect.ADDS,
        idempotent=False,
        run=create_sandbox,
    ),
    Tool(
        name="list_sandboxes",
        title="List sandboxes",
        description="Your sandboxes.",
        arguments=ListArguments,
        result=ListResult,
        effect=Effect.READS,
        idempotent=True,
        scope=Scope.READ,
        run=list_sandboxes,
    ),
    Tool(
        name="get_sandbox",
        title="Get a sandbox",
        description="One sandbox: status, deadline, limits.",
        arguments=OfSandbox,
        result=SandboxResult,
        effect=Effect.READS,
        idempotent=True,
        scope=Scope.READ,
        run=get_sandbox,
    ),
    Tool(
        name="delete_sandbox",
        title="Destroy a sandbox",
        description="End a sandbox and everything in it.",
        arguments=OfSandbox,
        result=DeletedResult,
        effect=Effect.CHANGES,
        idempotent=True,
        run=delete_sandbox,
    ),
    Tool(
        name="update_sandbox_timeout",
        title="Move a deadline",
        description="Set in how many seconds a sandbox is destroyed.",
        arguments=TimeoutArguments,
        result=TimeoutResult,
        effect=Effect.CHANGES,
        idempotent=False,
        run=update_sandbox_timeout,
    ),
    Tool(
        name="pause_sandbox",
        title="Pause a sandbox",
        description="Freeze a sandbox; memory stays. The next call in it resumes it.",
        arguments=OfSandbox,
        result=SandboxResult,
        effect=Effect.ADDS,
        idempotent=True,
        run=pause_sandbox,
    ),
    Tool(
        name="resume_sandbox",
        title="Resume a sandbox",
        description="Continue a paused sandbox.",
        arguments=OfSandbox,
        result=SandboxResult,
        effect=Effect.ADDS,
        idempotent=True,
        run=resume_sandbox,
    ),
    Tool(
        name="get_preview_url",
        title="Preview URL",
        description="The URL of a server that listens on a port inside a sandbox.",
        arguments=PortArguments,
        result=PreviewResult,
        effect=Effect.READS,
        idempotent=True,
        scope=Scope.READ,
        run=get_preview_url,
    ),
    Tool(
        name="get_agent_url",
        title="Agent URL",
        description="The URL of a sandbox's own HTTP API.",
        arguments=InSandbox,
        result=AgentUrlResult,
        effect=Effect.READS,
        idempotent=True,
        scope=Scope.READ,
        run=get_agent_url,
    ),
)
