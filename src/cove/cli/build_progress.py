"""A template build with a progress bar."""

import sys

from cove.host.templates.store import TemplateStore
from cove.models.templates import BuildProgress, TemplateManifest


def build_with_progress(store: TemplateStore, name: str) -> TemplateManifest:
    """Build `name`, with a bar on stderr: a moving one on a terminal, a line for each tenth in a log.

    Raises:
        CoveError: as `TemplateStore.build`.
    """
    if not sys.stderr.isatty():
        return _build_with_lines(store, name)

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("[bold]{task.fields[template]}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1.0, template=f"Template {name}")

        def show(step: BuildProgress) -> None:
            progress.update(task, completed=step.fraction, description=step.step)

        return store.build(name, on_progress=show)


def _build_with_lines(store: TemplateStore, name: str) -> TemplateManifest:
    shown = -1

    def show(step: BuildProgress) -> None:
        nonlocal shown
        tenth = int(step.fraction * 10)
        if tenth > shown:
            shown = tenth
            sys.stderr.write(f"Template {name}: {step.fraction:4.0%}  {step.step}\n")
            sys.stderr.flush()

    return store.build(name, on_progress=show)
