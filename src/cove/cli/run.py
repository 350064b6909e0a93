"""`cove run`: one program in a sandbox of its own, without a server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cove.cli.environment import variables
from cove.cli.limit_options import LimitsAsked, resources_asked
from cove.cli.locations import DataDir
from cove.cli.network_options import Allowed, Denied, Internet, Preset, policy_asked
from cove.cli.secret_options import Secrets, secrets_asked


def run(
    code: Annotated[str | None, typer.Argument(help="The program; - reads it from stdin.", show_default=False)] = None,
    language: Annotated[str, typer.Option("-l", "--language", help="python, javascript, bash or go.")] = "python",
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Read the program from a file.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds; then the program and all it started is ended.")] = 60.0,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, may be repeated.", show_default=False)
    ] = None,
    template: Annotated[str, typer.Option(help="What the sandbox is made from.")] = "code-interpreter",
    isolation: Annotated[
        str, typer.Option(envvar="COVE_ISOLATION", help="auto, or a level to insist on, e.g. gvisor.")
    ] = "auto",
    secret: Secrets = None,
    limit: LimitsAsked = None,
    internet: Internet = False,
    network: Preset = None,
    allow: Allowed = None,
    deny: Denied = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not say on stderr which limits this machine cannot enforce.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with all results.")] = False,
    timings: Annotated[bool, typer.Option("--timings", help="Say on stderr where the time went.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Run a program in a fresh sandbox on this machine, and end with its exit code.

    Output is passed on as it comes. Nothing is left running. Examples:

        cove run 'print(6 * 7)'

        cove run -l bash -f script.sh --timeout 10

        cove run --allow api.example.com 'import urllib.request; ...'

        echo 'console.log(1)' | cove run -l js -
    """
    from cove.cli.embedded_run import Program, run_once
    from cove.cli.locations import data_directory
    from cove.cli.output import reporting

    with reporting(as_json=as_json):
        program = Program.checked(
            code=_read_code(code, file),
            language=language,
            timeout=timeout,
            env=variables(env or []),
            template=template,
            isolation=isolation,
            resources=resources_asked(limit),
            network=policy_asked(allow, deny, network, internet=internet),
            secrets=secrets_asked(secret),
        )
        exit_code = run_once(program, data_directory(data_dir), as_json=as_json, timings=timings, quiet=quiet)
    sys.exit(exit_code)


def _read_code(code: str | None, file: Path | None) -> str:
    from cove.models.errors import error

    if (code is None) == (file is None):
        raise error("INVALID_REQUEST", "Give the program as an argument, or with -f FILE, or - for stdin.")
    try:
        raw = sys.stdin.buffer.read() if code == "-" else file.read_bytes() if file else None
        return raw.decode() if raw is not None else code or ""
    except OSError as problem:
        raise error("FILE_NOT_FOUND", f"Cannot read {file}: {problem.strerror}.") from problem
    except UnicodeDecodeError as problem:
        raise error("INVALID_REQUEST", "The program is not valid UTF-8.") from problem
