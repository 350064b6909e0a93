"""`cove sandboxes exec`, `processes`, `logs`, `kill-process`: programs in a sandbox."""

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cove.cli import output
from cove.cli.environment import variables
from cove.cli.sandboxes import ApiKey, AsJson, BaseUrl, SandboxId, opened

if TYPE_CHECKING:
    from cove.models.execution import CommandResult
    from cove.sdk import ExecutionEvent, Sandbox

ProcessId = Annotated[str, typer.Argument(metavar="PROCESS", help="Id of the process, as `processes` shows it.")]


def execute(
    sandbox_id: SandboxId,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="Program and arguments; a single one is shell text.")
    ],
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds; then the command and all it started is ended [default: 60; 300 in the background].",
            show_default=False,
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, may be repeated.", show_default=False)
    ] = None,
    workdir: Annotated[
        str | None, typer.Option("--workdir", "-w", help="Directory [default: /workspace].", show_default=False)
    ] = None,
    background: Annotated[bool, typer.Option("--background", "-b", help="Print its id and do not wait.")] = False,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Run a command in a sandbox, and end with its exit code.

    Output is passed on as it comes. Ctrl-C ends the command. Options go before the id. Examples:

        cove sandboxes exec ID -- ls -la /workspace

        cove sandboxes exec ID 'cat *.csv | wc -l'
    """
    # The parser leaves a `--` behind the id where it is.
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise typer.BadParameter("the command is missing")
    text = words[0] if len(words) == 1 else shlex.join(words)
    with output.reporting(as_json=as_json), opened(sandbox_id, base_url=base_url, api_key=api_key) as sandbox:
        given = variables(env or [])
        if background:
            process = sandbox.commands.run(text, background=True, timeout=timeout, env=given, working_dir=workdir)
            _print_started(process.id, process.execution_id, as_json=as_json)
            return
        if as_json:
            result = sandbox.commands.run(text, timeout=timeout, env=given, working_dir=workdir)
            output.print_json(result)
        else:
            result = _stream(sandbox, text, timeout=timeout, env=given, workdir=workdir)
    sys.exit(result.exit_code & 0xFF)


def list_processes(
    sandbox_id: SandboxId, base_url: BaseUrl = None, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """List the programs in the background of a sandbox, newest first; those that ended are kept for a while."""
    with output.reporting(as_json=as_json), opened(sandbox_id, base_url=base_url, api_key=api_key) as sandbox:
        found = [process.info for process in sandbox.list_processes() if process.info is not None]
    if as_json:
        output.print_json(found)
    elif found:
        rows = [
            (
                info.process_id,
                info.name or "",
                info.status,
                "" if info.exit_code is None else info.exit_code,
                output.duration(info.duration),
                info.language,
                info.command[:200],
            )
            for info in found
        ]
        output.print_table(("ID", "NAME", "STATUS", "EXIT", "TIME", "LANGUAGE", "COMMAND"), rows)
    else:
        typer.echo("No programs in the background.", err=True)


def logs(
    sandbox_id: SandboxId,
    process_id: ProcessId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    stream: Annotated[str | None, typer.Option(help="stdout or stderr [default: both].", show_default=False)] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Print what a program in the background has printed: stdout to stdout, stderr to stderr."""
    with output.reporting(as_json=False), opened(sandbox_id, base_url=base_url, api_key=api_key) as sandbox:
        process = sandbox.get_process(process_id)
        if stream is not None:
            for text in process.logs(stream, follow=True) if follow else [process.logs(stream)]:
                output.pass_on(text, error=stream == "stderr")
        elif follow:
            for event in process.events():
                _show(event)
        else:
            output.pass_on(process.logs("stdout"))
            output.pass_on(process.logs("stderr"), error=True)


def kill_process(
    sandbox_id: SandboxId,
    process_id: ProcessId,
    signal: Annotated[
        str | None,
        typer.Option(
            "--signal",
            "-s",
            help="Name or number to send [default: end it for certain, with all it started].",
            show_default=False,
        ),
    ] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """End a program in the background of a sandbox, or send it a signal."""
    wanted = int(signal) if signal is not None and signal.isdecimal() else signal
    with output.reporting(as_json=as_json), opened(sandbox_id, base_url=base_url, api_key=api_key) as sandbox:
        answer = sandbox.kill_process(process_id, wanted)
    if as_json:
        output.print_json(answer)
    else:
        typer.echo(output.plain(answer.message))


def _stream(
    sandbox: "Sandbox", text: str, *, timeout: float | None, env: dict[str, str], workdir: str | None
) -> "CommandResult":
    def to_stderr(piece: str) -> None:
        output.pass_on(piece, error=True)

    return sandbox.commands.run(
        text, timeout=timeout, env=env, working_dir=workdir, on_stdout=output.pass_on, on_stderr=to_stderr
    )


def _show(event: "ExecutionEvent") -> None:
    if event.type != "result":
        output.pass_on(event.data, error=event.type == "stderr")


def _print_started(process_id: str, execution_id: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"process_id": process_id, "execution_id": execution_id})
    else:
        typer.echo(output.plain(process_id))
