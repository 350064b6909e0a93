"""Shell commands, and what runs in a sandbox (contract section 5)."""

from functools import partial
from typing import Annotated

from pydantic import AfterValidator, Field

from cove.mcp.tool import Answer, AnyTool, Call, Effect, Tool
from cove.mcp.tools.hopx_arguments import (
    OUTPUT_CHARACTERS,
    BackgroundSeconds,
    Code,
    InSandbox,
    Number,
    OutputCharacters,
    ProcessLabel,
    Variables,
    WaitedSeconds,
)
from cove.mcp.tools.hopx_background import ListResult, StartedResult, listing_answer, started_answer
from cove.mcp.tools.hopx_reaching import answered
from cove.mcp.tools.hopx_running import ProgramResult, described, run_watched
from cove.sdk import AsyncSandbox


def _not_empty(command: str) -> str:
    if not command.strip():
        raise ValueError("it is empty")
    if "\0" in command:
        raise ValueError("a command cannot hold NUL")
    return command


_MAX_COMMAND_SHOWN = 300
Command = Annotated[Code, AfterValidator(_not_empty)]


class CommandArguments(InSandbox):
    """Of `run_command`."""

    command: Command
    timeout: WaitedSeconds = 30
    working_dir: str | None = "/workspace"
    env: Variables | None = None
    max_output_chars: OutputCharacters = OUTPUT_CHARACTERS


class BackgroundCommandArguments(InSandbox):
    """Of `run_command_background`."""

    command: Command
    timeout: BackgroundSeconds = 300
    working_dir: str | None = None
    env: Variables | None = None
    name: ProcessLabel | None = None


class ProcessesArguments(InSandbox):
    """Of `list_processes`."""

    max_results: Annotated[int, Field(ge=1, le=1000), Number] = 200


async def run_command(call: Call, arguments: CommandArguments) -> Answer:
    """Run shell text with Bash and wait for its end."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        start = partial(
            sandbox.commands.run,
            arguments.command,
            timeout=arguments.timeout,
            env=arguments.env,
            working_dir=arguments.working_dir or None,
        )
        characters = arguments.max_output_chars
        result = await run_watched(call, start, what="the command", timeout=arguments.timeout, characters=characters)
        return Answer(
            ProgramResult(**await described(result, sandbox, timeout=arguments.timeout, characters=characters))
        )

    return await answered(call, arguments.sandbox_id, use)


async def run_command_background(call: Call, arguments: BackgroundCommandArguments) -> Answer:
    """Start it and return."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        process = await sandbox.commands.run(
            arguments.command,
            background=True,
            timeout=arguments.timeout,
            env=arguments.env,
            name=arguments.name,
            working_dir=arguments.working_dir or None,
        )
        return started_answer(process, sandbox)

    return await answered(call, arguments.sandbox_id, use)


async def list_processes(call: Call, arguments: ProcessesArguments) -> Answer:
    """Every process in the sandbox."""

    async def use(sandbox: AsyncSandbox) -> Answer:
        found = await sandbox.list_system_processes()
        rows = [entry.model_dump(mode="json") for entry in found[: arguments.max_results]]
        for row in rows:
            row["command"] = row["command"][:_MAX_COMMAND_SHOWN]
        return listing_answer(rows, total=len(found))

    return await answered(call, arguments.sandbox_id, use)


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="run_command",
        title="Run a command",
        description="Run shell text with Bash in a sandbox and wait for its end.",
        arguments=CommandArguments,
        result=ProgramResult,
        effect=Effect.CHANGES,
        idempotent=False,
        open_world=True,
        run=run_command,
    ),
    Tool(
        name="run_command_background",
        title="Start a command",
        description="Start shell text and return at once, for example a web server; then get_preview_url.",
        arguments=BackgroundCommandArguments,
        result=StartedResult,
        effect=Effect.CHANGES,
        idempotent=False,
        open_world=True,
        run=run_command_background,
    ),
    Tool(
        name="list_processes",
        title="List processes",
        description="All processes in a sandbox.",
        arguments=ProcessesArguments,
        result=ListResult,
        effect=Effect.READS,
        idempotent=True,
        run=list_processes,
    ),
)
