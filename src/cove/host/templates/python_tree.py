"""Python inside a template: its files, and byte code that names the paths of the sandbox."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from cove.host.templates.interpreter import PREFIX_INSIDE, Interpreter
from cove.host.templates.rootfs import Rootfs
from cove.models.errors import error

COMPILE_TIMEOUT = 900.0


def copy_interpreter(rootfs: Rootfs, interpreter: Interpreter, *, exclude: Sequence[str]) -> None:
    """Copy executable and standard library; it is called `python3` and `python` inside."""
    executable = Path(interpreter.executable)
    inside = interpreter.inside(str(executable))
    rootfs.copy_file(executable, inside)
    stdlib = interpreter.inside(interpreter.stdlib)
    # Byte code holds the path of its source: that of a moved interpreter is made anew.
    outdated = ("*__pycache__",) if interpreter.relocated else ("*.opt-[12].pyc",)
    rootfs.copy_tree(Path(interpreter.stdlib), stdlib, exclude=(*exclude, *outdated))
    if interpreter.relocated:
        _rename_prefix(rootfs.locate(stdlib), interpreter.prefix)
    directory = str(Path(interpreter.command).parent)
    for name in ("python3", "python"):
        rootfs.link(f"{directory}/{name}", inside)
    # site.py puts these on sys.path only when they exist at its start: `pip install` in a sandbox must find
    # its way into interpreters that run already.
    major, minor, _ = interpreter.version
    for place in (f"python{major}.{minor}", f"python{major}.{minor}/site-packages"):
        rootfs.directory(f"/home/user/.local/lib/{place}", mode=0o777)
    rootfs.directory(interpreter.inside(interpreter.purelib))


def _rename_prefix(stdlib: Path, prefix: str) -> None:
    for path in stdlib.glob("_sysconfigdata*.py"):
        path.write_text(path.read_text(encoding="utf-8").replace(prefix, PREFIX_INSIDE), encoding="utf-8")


def compile_tree(rootfs: Rootfs, interpreter: Interpreter, inside: str, *, skip: str = "") -> None:
    """Compile everything below `inside` with the template's own interpreter. Files that do not compile stay as
    they are: packages ship templates and code for other versions.

    Args:
        skip: regular expression of paths that are left alone.
    """
    command = [interpreter.executable, "-I", "-m", "compileall", "-qq", "-j", "2", "-s", str(rootfs.root), "-p", "/"]
    if skip:
        command += ["-x", skip]
    try:
        subprocess.run(
            [*command, str(rootfs.locate(inside))], env={"LC_ALL": "C.UTF-8"}, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=COMPILE_TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise error("TEMPLATE_BUILD_FAILED", f"Compiling Python files failed: {problem}") from problem
