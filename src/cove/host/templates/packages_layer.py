"""The layer of a template's Python packages, in the directory in which its interpreter looks for them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cove.host.templates.confinement import Confinement, ConfinementUnavailable
from cove.host.templates.interpreter import PREFIX_INSIDE, Interpreter
from cove.host.templates.layers import Workspace
from cove.host.templates.paths import BASE_ENVIRONMENT, MATPLOTLIB, PLOT_ENVIRONMENT
from cove.host.templates.pip_install import install
from cove.host.templates.python_tree import compile_tree
from cove.host.templates.recipes import PythonRecipe
from cove.host.templates.rootfs import Rootfs, remove_tree

FONT_CACHE_TIMEOUT = 120.0
SCRIPT_LIMIT = 64 * 1024
# Test suites are seldom imported; Python compiles what is.
NOT_COMPILED = r"/tests?/"


class PackagesLayer:
    """Installed with pip, compiled, with commands that start the interpreter inside."""

    kind = "packages"

    def __init__(self, recipe: PythonRecipe, interpreter: Interpreter) -> None:
        self._recipe = recipe
        self._interpreter = interpreter

    @property
    def seconds(self) -> float:
        return 10.0 + 3.0 * len(self._recipe.requirements)

    def inputs(self) -> Mapping[str, Any]:
        """The recipe and the interpreter's identity."""
        return {"recipe": self._recipe.model_dump(mode="json"), "interpreter": self._interpreter.identity}

    def build(self, work: Workspace) -> None:
        """Install, tidy up, compile."""
        interpreter = self._interpreter
        landing = work.rootfs.locate(interpreter.purelib)
        work.packages |= install(
            interpreter, self._recipe.requirements, ("--root", str(work.rootfs.root)), landing=landing,
            report=lambda step, done: work.report(step, 0.6 * done),
        )  # fmt: skip
        if interpreter.relocated:
            _relocate(work.rootfs, interpreter)
        packages = interpreter.inside(interpreter.purelib)
        fix_scripts(work.rootfs, interpreter)
        for pattern in self._recipe.prune:
            for path in work.rootfs.locate(packages).glob(pattern):
                remove_tree(path)
        work.report("Compiling packages", 0.65)
        compile_tree(work.rootfs, interpreter, packages, skip=NOT_COMPILED)
        if self._recipe.font_cache:
            work.report("Indexing fonts", 0.97)
            _add_font_cache(work, interpreter)


def fix_scripts(rootfs: Rootfs, interpreter: Interpreter) -> None:
    """Let installed commands start the interpreter inside; pip wrote the path of the host's."""
    host = f"{interpreter.executable}".encode()
    for path in rootfs.locate(interpreter.inside(interpreter.scripts)).glob("*"):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > SCRIPT_LIMIT:
            continue
        content = path.read_bytes()
        first, newline, rest = content.partition(b"\n")
        if first.startswith(b"#!") and host in first:
            path.write_bytes(first.replace(host, interpreter.command.encode()) + newline + rest)


def _relocate(rootfs: Rootfs, interpreter: Interpreter) -> None:
    """Move what pip put below the host's prefix to the prefix inside."""
    target = rootfs.locate(PREFIX_INSIDE)
    target.parent.mkdir(parents=True, exist_ok=True)
    rootfs.locate(interpreter.prefix).rename(target)
    top = rootfs.root / Path(interpreter.prefix).parts[1]
    if top != rootfs.root / "usr":
        remove_tree(top)


def _add_font_cache(work: Workspace, interpreter: Interpreter) -> None:
    """Ship matplotlib's index of fonts; making it takes a second of somebody's first plot."""
    confinement = Confinement((work.rootfs.root, *work.below), work.scratch / "fonts")
    try:
        made = confinement.writable(MATPLOTLIB)
        done = confinement.run(
            [interpreter.command, "-c", "import matplotlib.font_manager"],
            environment=BASE_ENVIRONMENT | PLOT_ENVIRONMENT, timeout=FONT_CACHE_TIMEOUT,
        )  # fmt: skip
        if done.exit_code != 0:
            work.notes.append(f"font cache: left out: {done.output}")
            return
        for directory in (Path(MATPLOTLIB).parents[1], Path(MATPLOTLIB).parent, Path(MATPLOTLIB)):
            work.rootfs.directory(str(directory), mode=0o777)
        for path in made.glob("fontlist*.json"):
            copy = work.rootfs.locate(f"{MATPLOTLIB}/{path.name}")
            copy.write_bytes(path.read_bytes())
            os.chmod(copy, 0o666)  # noqa: PTH101, S103
    except ConfinementUnavailable as reason:
        work.notes.append(f"font cache: left out, this host gives no namespaces: {reason}")
    finally:
        confinement.close()
