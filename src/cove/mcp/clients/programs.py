"""The program that a client starts. Clients start it without a shell, and often with hardly any PATH."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "cove-sandbox"
_UVX_ENVIRONMENTS = ("archive-v0", "environments-v2")


@dataclass(frozen=True, slots=True)
class Program:
    """An executable and what stands before `mcp` in its arguments."""

    command: str
    arguments: tuple[str, ...] = ()


def running_program(called_as: str | None = None) -> Program:
    """The `cove` that runs now, by its absolute path.

    Links are kept: those that tools make for programs outlive an upgrade, what they lead to does not.

    Args:
        called_as: instead of the name that this process was started by.
    """
    called = Path(called_as if called_as is not None else sys.argv[0])
    if called.stem in ("cove", DISTRIBUTION) and os.access(called, os.X_OK) and called.is_file():
        return Program(os.path.abspath(called))  # noqa: PTH100 - Path.resolve would follow links
    beside = Path(sys.executable).parent / "cove"
    if os.access(beside, os.X_OK):
        return Program(str(beside))
    return Program(sys.executable, ("-m", "cove.cli.main"))


def uvx_program() -> Program:
    """`uvx`, which fetches Cove when it is not there yet. By its absolute path where this machine has it."""
    return Program(shutil.which("uvx") or "uvx", ("--from", DISTRIBUTION, "cove"))


def is_passing(program: Program) -> bool:
    """Whether the program lies in an environment that uvx makes for one run and removes at will."""
    return any(part in _UVX_ENVIRONMENTS for part in Path(program.command).parts)
