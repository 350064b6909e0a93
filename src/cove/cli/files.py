"""`cove sandboxes cp`, `watch`: files of a sandbox."""

import json
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from cove.cli import output
from cove.cli.sandboxes import ApiKey, AsJson, BaseUrl, SandboxId, opened

if TYPE_CHECKING:
    from cove.models.files import FileWritten
    from cove.sdk import ChangeFrame, OverflowFrame, Sandbox

_REMOTE = re.compile(r"(\d{10}[a-z0-9]{8}):(.*)", re.DOTALL)
_CONTENTS = "/."
Told = Callable[[int], None]


class Remote(NamedTuple):
    """`ID:PATH`; without a path that is /workspace."""

    sandbox_id: str
    path: str


def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A local path, or ID:PATH in a sandbox.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="The other of the two.")],
    timeout: Annotated[float, typer.Option(help="Seconds for the whole.")] = 3600.0,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Copy a file or a directory into a sandbox, or out of one.

    As with cp: what DST names is replaced; if it is a directory, the copy is put into it. SRC/. means the contents of a
    directory. Examples:

        cove sandboxes cp report.csv ID:/workspace/

        cove sandboxes cp ID:/workspace/out ./results
    """
    with output.reporting(as_json=as_json):
        inside, outside, upload = _sides(source, target)
        with (
            opened(inside.sandbox_id, base_url=base_url, api_key=api_key) as sandbox,
            _progress(_size(outside) if upload else None, quiet=as_json) as told,
        ):
            act = _upload if upload else _download
            with _local_errors():
                done = act(sandbox, inside.path, outside, timeout, told)
    if as_json:
        output.print_json(done)
        return
    for left_out in getattr(done, "skipped", ()):
        typer.echo(output.plain(f"left out: {left_out.path}: {left_out.reason}"), err=True)


def watch(
    sandbox_id: SandboxId,
    path: Annotated[str, typer.Argument(help="File or directory.")] = "/workspace",
    recursive: Annotated[bool, typer.Option(help="Also what is below directories in it.")] = True,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to watch [default: until Ctrl-C].", show_default=False)
    ] = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print changes of files in a sandbox as they happen."""
    with (
        output.reporting(as_json=as_json),
        opened(sandbox_id, base_url=base_url, api_key=api_key) as sandbox,
        sandbox.files.watch(path, recursive=recursive, timeout=timeout) as changes,
    ):
        typer.echo(output.plain(f"Watching {path}"), err=True)
        for change in changes:
            line = json.dumps(change.model_dump(mode="json")) if as_json else output.plain(_described(change))
            output.pass_on(f"{line}\n")


def _sides(source: str, target: str) -> tuple[Remote, str, bool]:
    """The path in the sandbox, the local one, and whether the copy goes into the sandbox."""
    from cove.models.errors import error

    found = _REMOTE.fullmatch(source), _REMOTE.fullmatch(target)
    if (found[0] is None) == (found[1] is None):
        raise error(
            "INVALID_REQUEST",
            "One of the two must be in a sandbox (ID:PATH), the other a local path.",
            remedy="To copy between sandboxes, copy to a local path first.",
        )
    inside = found[0] or found[1]
    assert inside is not None
    return Remote(inside[1], inside[2] or "/workspace"), target if found[0] else source, found[1] is not None


def _upload(sandbox: "Sandbox", inside: str, outside: str, timeout: float, told: Told) -> "FileWritten":
    local = Path(outside)
    into = inside.endswith("/") or sandbox.files.exists(f"{inside}/.")
    if into and not outside.endswith(_CONTENTS):
        inside = f"{inside.rstrip('/')}/{local.resolve().name}"
    return sandbox.files.upload(local, inside, timeout=timeout, on_progress=told)


def _download(sandbox: "Sandbox", inside: str, outside: str, timeout: float, told: Told) -> "FileWritten":
    from cove.models.files import FileWritten

    local = Path(outside)
    if local.is_dir() and not inside.endswith(_CONTENTS):
        local = local / (PurePosixPath(inside).name or "root")
    if sandbox.files.exists(f"{inside}/."):
        return sandbox.files.download_dir(inside, local, timeout=timeout, on_progress=told)
    sandbox.files.download(inside, local, timeout=timeout, on_progress=told)
    return FileWritten(message="The file was copied.", path=str(local), size=local.stat().st_size, timestamp="")


def _described(change: "ChangeFrame | OverflowFrame") -> str:
    if change.type == "overflow":
        return f"overflow {change.path} (changes were lost)"
    came_from = f"{change.old_path} -> " if change.old_path else ""
    return f"{change.event} {came_from}{change.path}{'/' if change.is_directory else ''}"


def _size(path: str) -> int | None:
    """Bytes of a local file; None where that is not known at once."""
    try:
        return Path(path).stat().st_size if Path(path).is_file() else None
    except OSError:
        return None


@contextmanager
def _local_errors() -> Generator[None]:
    """Say what is wrong with a local file in the words of the other errors."""
    from cove.models.errors import error

    try:
        yield
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        raise error("INVALID_PATH", f"{where}{problem.strerror or problem}.", remedy="Give another path.") from problem


@contextmanager
def _progress(total: int | None, *, quiet: bool) -> Generator[Told]:
    """A bar on stderr, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
