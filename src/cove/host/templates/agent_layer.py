"""The topmost layers: Cove's own guest code, and the packages that it needs, in a private directory.

The two are apart so that an edit of the code rebuilds only a few files.
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import cove
from cove.host.templates.interpreter import Interpreter
from cove.host.templates.layers import Workspace
from cove.host.templates.paths import AGENT_PATH
from cove.host.templates.pip_install import install
from cove.host.templates.python_tree import compile_tree
from cove.host.templates.rootfs import remove_tree

# Ranges as in the project's own dependencies. IPython is a package of the template: users start it, too.
REQUIREMENTS = (
    "httptools>=0.7,<1",
    "pydantic>=2.12,<3",
    "python-multipart>=0.0.20,<0.1",
    "starlette>=0.49,<2",
    "uvicorn>=0.38,<1",
    "websockets>=15,<18",
)
# What runs inside a sandbox, relative to the package: directories whole, and single files.
GUEST_CODE = (
    "__init__.py",
    "models",
    "linux",
    "agent",
    "drivers/__init__.py",
    "drivers/gvisor/__init__.py",
    "drivers/gvisor/guest",
    "drivers/namespace/__init__.py",
    "drivers/namespace/forkserver.py",
    "drivers/namespace/forkserver",
)


class AgentRequirementsLayer:
    """The agent's third-party packages. They are apart from the user's, so that neither disturbs the other."""

    kind = "agent-requirements"
    seconds = 10.0

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    def inputs(self) -> Mapping[str, Any]:
        """The requirements and the interpreter's identity."""
        return {"requirements": REQUIREMENTS, "interpreter": self._interpreter.identity, "path": AGENT_PATH}

    def build(self, work: Workspace) -> None:
        """Install and compile. Packages are not listed in the manifest: they are no offer to users."""
        target = work.rootfs.directory(AGENT_PATH)
        install(
            self._interpreter, REQUIREMENTS, ("--target", str(target)), landing=target,
            report=lambda step, done: work.report(step, 0.8 * done),
        )  # fmt: skip
        remove_tree(target / "bin")
        compile_tree(work.rootfs, self._interpreter, AGENT_PATH)


class AgentLayer:
    """A copy of the guest code of the Cove that builds the template."""

    kind = "agent"
    seconds = 2.0

    def __init__(self, interpreter: Interpreter, *, package: Path | None = None) -> None:
        self._interpreter = interpreter
        self._package = package or Path(cove.__file__).parent

    def inputs(self) -> Mapping[str, Any]:
        """A hash of every file, and the interpreter's identity."""
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in self._files.items()}
        return {"files": hashes, "interpreter": self._interpreter.identity, "path": AGENT_PATH}

    def build(self, work: Workspace) -> None:
        """Copy and compile."""
        work.report("Copying the agent", 0.0)
        for name, content in self._files.items():
            copy = work.rootfs.locate(f"{AGENT_PATH}/cove/{name}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
            copy.chmod(0o644)
        compile_tree(work.rootfs, self._interpreter, AGENT_PATH)

    @cached_property
    def _files(self) -> dict[str, bytes]:
        # Read once, so that what is copied is what was hashed, also while somebody edits.
        return dict(self._read())

    def _read(self) -> Iterator[tuple[str, bytes]]:
        for entry in GUEST_CODE:
            top = self._package / entry
            for path in sorted(top.rglob("*")) if top.is_dir() else (top,):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield str(path.relative_to(self._package)), path.read_bytes()
