"""`cove templates build`: build on this machine, straight into the data directory."""

from typing import Annotated

import typer

from cove.cli import output
from cove.cli.locations import DataDir, data_directory


def build(
    names: Annotated[
        list[str] | None, typer.Argument(help="Templates; none means all that ship with Cove.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Build templates from their recipes, with a progress bar. What is built and current is left alone."""
    from cove.cli.build_progress import build_with_progress
    from cove.hostd.assembly import template_store

    store = template_store(data_directory(data_dir))
    with output.reporting(as_json=False):
        for name in names or [recipe.name for recipe in store.recipes()]:
            if store.is_current(name):
                typer.echo(f"Template {name} is built and current.", err=True)
                continue
            manifest = build_with_progress(store, name)
            megabytes = manifest.size_bytes / 1e6
            typer.echo(f"Template {name} is built: {len(manifest.packages)} packages, {megabytes:.0f} MB.", err=True)
