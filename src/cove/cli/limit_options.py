"""Options about limits that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cove.cli import output

if TYPE_CHECKING:
    from cove.models.sandboxes import ResourcesRequest

MaxSandboxes = Annotated[
    int | None, typer.Option(min=0, help="Sandboxes that exist at the same time.", show_default=False)
]
MaxTotalVcpu = Annotated[int | None, typer.Option(min=0, help="Processors of all of them.", show_default=False)]
MaxTotalMemory = Annotated[int | None, typer.Option(min=0, help="Memory of all of them, MiB.", show_default=False)]
MaxTotalDisk = Annotated[int | None, typer.Option(min=0, help="Disk of all of them, MiB.", show_default=False)]
MaxVcpu = Annotated[int | None, typer.Option(min=1, help="Processors of any one sandbox.", show_default=False)]
MaxMemory = Annotated[int | None, typer.Option(min=64, help="Memory of any one sandbox, MiB.", show_default=False)]
MaxDisk = Annotated[int | None, typer.Option(min=64, help="Disk of any one sandbox, MiB.", show_default=False)]
MaxPids = Annotated[
    int | None, typer.Option(min=16, help="Processes and threads of any one sandbox.", show_default=False)
]
MaxOpenFiles = Annotated[
    int | None, typer.Option(min=64, help="Open files of a process of any one sandbox.", show_default=False)
]
MaxInodes = Annotated[
    int | None, typer.Option(min=256, help="Files and directories of any one sandbox.", show_default=False)
]
MaxCpuShare = Annotated[
    int | None, typer.Option(min=1, help="Weight for processors of any one sandbox; 100 is normal.", show_default=False)
]
MaxExecutionSeconds = Annotated[
    int | None, typer.Option(min=1, help="Longest execution in any one sandbox.", show_default=False)
]
MaxOutputBytes = Annotated[
    int | None, typer.Option(min=1024, help="Output kept of an execution in any one sandbox.", show_default=False)
]
MaxNetworkMbps = Annotated[
    int | None, typer.Option(min=1, help="Million bits a second, each way, of any one sandbox.", show_default=False)
]

LimitsAsked = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="A limit of the sandbox, e.g. memory_mb=512; may be repeated. Also vcpu, disk_mb, pids, open_files,"
        " inodes, cpu_share, max_execution_seconds, max_output_bytes, network_mbps.",
        show_default=False,
    ),
]


def resources_asked(texts: list[str] | None) -> ResourcesRequest | None:
    """What `--limit` options ask for; None when there are none.

    Raises:
        CoveError: INVALID_REQUEST, naming the limits that there are.
    """
    if not texts:
        return None
    from pydantic import ValidationError

    from cove.models.errors import error
    from cove.models.sandboxes import ResourcesRequest

    asked: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise error("INVALID_REQUEST", f"--limit {text[:40]!r} is not of the form NAME=VALUE.")
        asked[name.strip().replace("-", "_")] = value.strip()
    try:
        return ResourcesRequest.model_validate(asked)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = "".join(f" {part}" for part in first["loc"])
        raise error("INVALID_REQUEST", f"--limit{where}: {first['msg'].removeprefix('Value error, ')}.") from None


def unenforced(names: tuple[str, ...]) -> str:
    """A line about limits that a server's machine does not enforce."""
    return output.plain(f"The server's machine does not enforce {', '.join(names)}: `cove doctor` there says why.")
