"""Where things are, for commands that work on this machine's own data."""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="COVE_DATA_DIR",
        help="Where Cove keeps its data [default: /var/lib/cove for root, ~/.local/share/cove for others].",
        show_default=False,
    ),
]


def data_directory(chosen: Path | None) -> Path:
    """The chosen directory, or the default one."""
    from cove.models.directories import default_data_dir

    return (chosen or default_data_dir()).absolute()
