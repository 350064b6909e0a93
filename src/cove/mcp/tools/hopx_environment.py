"""A sandbox's variables, figures and cache, and what it says of itself (contract section 5)."""

from typing import Any

from pydantic import ConfigDict

from cove.mcp.bounds import LISTED_CHARACTERS, bounded
from cove.mcp.output import shortened
from cove.mcp.tool import Answer, AnyTool, Call, Effect, Result, Tool
from cove.mcp.tools.hopx_arguments import InSandbox, Variables
from cove.mcp.tools.hopx_reaching import answered
from cove.sdk import AsyncSandbox

_VALUE_CHARACTERS = 4_000


class OpenResult(Result):
    """What a sandbox answers as it likes."""

    model_config = ConfigDict(extra="allow")


class SetArguments(InSandbox):
    """Of `env_set`."""

    env_vars: Variables
    merge: bool = True


class VariablesResult(Result):
    """Of `env_get`. `left_out` counts those that were too many to show; long values are cut, and say so."""

    env_vars: dict[str, str]
    left_out: int | None = None


class SetResult(Result):
    """Of `env_set`."""

    status: str = "success"
    message: str
    variables_set: int
    merge_mode: bool


class StatusResult(Result):
    """That it was done."""

    status: str


class PingResult(Result):
    """Of `ping_vm`."""

    status: str = "ok"
    agent_version: str
    agent: str
    features: dict[str, Any]
    uptime: float


async def env_get(call: Call, arguments: InSandbox) -> Answer:
    """Those that were set for the whole sandbox."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        found = await sandbox.env.get_all()
        kept: dict[str, str] = {}
        left = LISTED_CHARACTERS
        for name, value in found.items():
            text = shortened(value, _VALUE_CHARACTERS, rest="run printenv to see it")
            left -= len(name) + len(text)
            if left < 0:
                break
            kept[name] = text
        return Answer(VariablesResult(env_vars=kept, left_out=len(found) - len(kept) or None))

    return await answered(call, arguments.sandbox_id, use)


async def env_set(call: Call, arguments: SetArguments) -> Answer:
    """Set some, or with `merge` false exactly these."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        if arguments.merge:
            now = await sandbox.env.update(arguments.env_vars)
        else:
            now = await sandbox.env.set_all(arguments.env_vars)
        return Answer(
            SetResult(
                message=f"{len(now)} variables are set.",
                variables_set=len(arguments.env_vars),
                merge_mode=arguments.merge,
            )
        )

    return await answered(call, arguments.sandbox_id, use)


async def env_clear(call: Call, arguments: InSandbox) -> Answer:
    """Unset all that were set."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        await sandbox.env.set_all({})
        return Answer(StatusResult(status="cleared"))

    return await answered(call, arguments.sandbox_id, use)


async def get_system_metrics(call: Call, arguments: InSandbox) -> Answer:
    """Use of processor, memory, disk."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        return Answer(bounded(await sandbox.get_metrics_snapshot(), "metrics"))

    return await answered(call, arguments.sandbox_id, use)


async def ping_vm(call: Call, arguments: InSandbox) -> Answer:
    """Whether the agent answers."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        info = await sandbox.get_agent_info()
        return Answer(
            PingResult(
                agent_version=info.agent_version,
                agent=info.agent,
                features=bounded(info.features, "features"),
                uptime=info.uptime,
            )
        )

    return await answered(call, arguments.sandbox_id, use)


async def get_vm_info(call: Call, arguments: InSandbox) -> Answer:
    """All that the agent says of itself."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        return Answer(bounded((await sandbox.get_agent_info()).model_dump(mode="json"), "information"))

    return await answered(call, arguments.sandbox_id, use)


async def cache_stats(call: Call, arguments: InSandbox) -> Answer:
    """How the agent's cache does."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        return Answer(bounded(await sandbox.cache.stats(), "figures"))

    return await answered(call, arguments.sandbox_id, use)


async def cache_clear(call: Call, arguments: InSandbox) -> Answer:
    """Empty it."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        await sandbox.cache.clear()
        return Answer(StatusResult(status="success"))

    return await answered(call, arguments.sandbox_id, use)


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="env_get",
        title="Get variables",
        description="Environment variables of a sandbox.",
        arguments=InSandbox,
        result=VariablesResult,
        effect=Effect.READS,
        idempotent=True,
        run=env_get,
    ),
    Tool(
        name="env_set",
        title="Set variables",
        description="Set environment variables of a sandbox; merge=false removes all others.",
        arguments=SetArguments,
        result=SetResult,
        effect=Effect.CHANGES,
        idempotent=True,
        run=env_set,
    ),
    Tool(
        name="env_clear",
        title="Clear variables",
        description="Unset all variables that were set.",
        arguments=InSandbox,
        result=StatusResult,
        effect=Effect.CHANGES,
        idempotent=True,
        run=env_clear,
    ),
    Tool(
        name="get_system_metrics",
        title="Resource use",
        description="Use of processor, memory and disk in a sandbox.",
        arguments=InSandbox,
        result=OpenResult,
        effect=Effect.READS,
        idempotent=True,
        run=get_system_metrics,
    ),
    Tool(
        name="ping_vm",
        title="Ping a sandbox",
        description="Whether a sandbox answers.",
        arguments=InSandbox,
        result=PingResult,
        effect=Effect.READS,
        idempotent=True,
        run=ping_vm,
    ),
    Tool(
        name="get_vm_info",
        title="Describe a sandbox",
        description="Versions and features of a sandbox.",
        arguments=InSandbox,
        result=OpenResult,
        effect=Effect.READS,
        idempotent=True,
        run=get_vm_info,
    ),
    Tool(
        name="cache_stats",
        title="Cache figures",
        description="Figures of a sandbox's cache.",
        arguments=InSandbox,
        result=OpenResult,
        effect=Effect.READS,
        idempotent=True,
        run=cache_stats,
    ),
    Tool(
        name="cache_clear",
        title="Clear the cache",
        description="Empty a sandbox's cache.",
        arguments=InSandbox,
        result=StatusResult,
        effect=Effect.CHANGES,
        idempotent=True,
        run=cache_clear,
    ),
)
