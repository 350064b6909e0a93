"""Programs that go on without the call that started them (contract section 5)."""

from typing import Annotated, Any

from pydantic import Field

from cove.mcp.bounds import fitting
from cove.mcp.output import printed, shortened, shown
from cove.mcp.tool import Answer, AnyTool, Call, Effect, Result, Tool
from cove.mcp.tools.hopx_arguments import (
    OUTPUT_CHARACTERS,
    BackgroundSeconds,
    Code,
    InSandbox,
    Language,
    Number,
    ProcessId,
    ProcessLabel,
    Variables,
)
from cove.mcp.tools.hopx_reaching import answered
from cove.models.async_executions import DEFAULT_ASYNC_SECONDS, MAX_CALLBACK_URL_CHARACTERS
from cove.sdk import AsyncProcess, AsyncSandbox

_LISTED_CHARACTERS = 500
"""Of each stream, in a list of many."""


class BackgroundArguments(InSandbox):
    """Of `execute_code_background`."""

    code: Code
    language: Language = "python"
    timeout: BackgroundSeconds = 300
    env: Variables | None = None
    working_dir: str | None = None
    name: ProcessLabel | None = None


class StartedResult(Result):
    """A program that has started."""

    process_id: str
    execution_id: str | None = None
    status: str
    message: str
    name: str | None = None
    sandbox_id: str


class AsyncArguments(InSandbox):
    """Of `execute_code_async`."""

    code: Code
    callback_url: str = Field(min_length=1, max_length=MAX_CALLBACK_URL_CHARACTERS)
    language: Language = "python"
    timeout: BackgroundSeconds = DEFAULT_ASYNC_SECONDS
    env: Variables | None = None
    working_dir: str | None = None
    callback_headers: dict[str, str] | None = None
    callback_signature_secret: str | None = None


class AcceptedResult(Result):
    """Of `execute_code_async`."""

    execution_id: str
    status: str
    callback_url: str
    message: str
    sandbox_id: str


class ListArguments(InSandbox):
    """Of `execute_list_processes`."""

    max_results: Annotated[int, Field(ge=1, le=1000), Number] = 100
    process_id: ProcessId | None = Field(default=None, description="Only this one, with more of its output.")


class ListResult(Result):
    """Of tools that list processes."""

    processes: list[dict[str, Any]]
    count: int
    truncated: bool
    total_processes: int


class KillArguments(InSandbox):
    """Of `execute_kill_process`."""

    process_id: ProcessId


class KilledResult(Result):
    """Of `execute_kill_process`."""

    status: str = "killed"
    process_id: str
    message: str


async def execute_code_background(call: Call, arguments: BackgroundArguments) -> Answer:
    """Start and return."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        process = await sandbox.run_code_background(
            arguments.code,
            language=arguments.language,
            timeout=arguments.timeout,
            env=arguments.env,
            name=arguments.name,
            working_dir=arguments.working_dir or None,
        )
        return started_answer(process, sandbox)

    return await answered(call, arguments.sandbox_id, use)


def started_answer(process: AsyncProcess, sandbox: AsyncSandbox) -> Answer:
    """What a model has to know of a program that it has started."""
    return Answer(
        StartedResult(
            process_id=process.id,
            execution_id=process.execution_id,
            status=str(process.status),
            message=f"Started. execute_list_processes(process_id='{process.id}') shows its output.",
            name=process.name,
            sandbox_id=sandbox.sandbox_id,
        )
    )


async def execute_code_async(call: Call, arguments: AsyncArguments) -> Answer:
    """Hand it to the server, which sends the result."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        accepted = await sandbox.run_code_async(
            arguments.code,
            arguments.callback_url,
            language=arguments.language,
            timeout=arguments.timeout,
            env=arguments.env,
            working_dir=arguments.working_dir or None,
            callback_headers=arguments.callback_headers,
            callback_signature_secret=arguments.callback_signature_secret,
        )
        return Answer(
            AcceptedResult(
                execution_id=accepted.execution_id,
                status=str(accepted.status),
                callback_url=accepted.callback_url,
                message=accepted.message,
                sandbox_id=sandbox.sandbox_id,
            )
        )

    return await answered(call, arguments.sandbox_id, use)


async def execute_list_processes(call: Call, arguments: ListArguments) -> Answer:
    """Those that run and those that have ended lately, newest first."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        if arguments.process_id is not None:
            one = await _detailed(await sandbox.get_process(arguments.process_id), sandbox)
            return Answer(ListResult(processes=[one], count=1, truncated=False, total_processes=1))
        found = await sandbox.list_processes()
        rows = [_row(process, _LISTED_CHARACTERS) for process in found[: arguments.max_results]]
        return listing_answer(rows, total=len(found))

    return await answered(call, arguments.sandbox_id, use)


def listing_answer(rows: list[dict[str, Any]], *, total: int) -> Answer:
    """As many of `rows` as a model should read at once."""
    kept = fitting(rows)
    return Answer(ListResult(processes=kept, count=len(kept), truncated=len(kept) < total, total_processes=total))


async def execute_kill_process(call: Call, arguments: KillArguments) -> Answer:
    """End it with all that it started."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        killed = await sandbox.kill_process(arguments.process_id)
        return Answer(KilledResult(process_id=killed.process_id, message=killed.message))

    return await answered(call, arguments.sandbox_id, use)


async def _detailed(process: AsyncProcess, sandbox: AsyncSandbox) -> dict[str, Any]:
    row = _row(process, OUTPUT_CHARACTERS)
    result = None if process.info is None else process.info.result
    if result is not None:
        for stream in ("stdout", "stderr"):
            row[stream] = await shown(printed(result, stream), OUTPUT_CHARACTERS, sandbox=sandbox, lasting=True)
    return row


def _row(process: AsyncProcess, characters: int) -> dict[str, Any]:
    if process.info is None:
        return {"process_id": process.id, "status": str(process.status)}
    row = process.info.model_dump(
        mode="json", exclude_none=True, exclude={"result", "started_at", "completed_at", "execution_time", "command"}
    )
    for stream in ("stdout", "stderr"):
        row[stream] = shortened(row[stream], characters, rest="give process_id to see more")
    return row


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="execute_code_background",
        title="Start code in the background",
        description="Start a long program in a sandbox and return at once. Follow it with execute_list_processes.",
        arguments=BackgroundArguments,
        result=StartedResult,
        effect=Effect.CHANGES,
        idempotent=False,
        open_world=True,
        run=execute_code_background,
    ),
    Tool(
        name="execute_code_async",
        title="Run code, result by webhook",
        description="Start a very long program; its result is sent by POST to callback_url.",
        arguments=AsyncArguments,
        result=AcceptedResult,
        effect=Effect.CHANGES,
        idempotent=False,
        open_world=True,
        run=execute_code_async,
    ),
    Tool(
        name="execute_list_processes",
        title="List background programs",
        description="Programs started in the background: status, exit code, output.",
        arguments=ListArguments,
        result=ListResult,
        effect=Effect.READS,
        idempotent=True,
        run=execute_list_processes,
    ),
    Tool(
        name="execute_kill_process",
        title="End a background program",
        description="End a background program with all that it started.",
        arguments=KillArguments,
        result=KilledResult,
        effect=Effect.CHANGES,
        idempotent=True,
        run=execute_kill_process,
    ),
)
