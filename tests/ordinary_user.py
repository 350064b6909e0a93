"""A Python for an ordinary user of this machine, with all that the tests' own can import."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

USER = 12345
"""No account is needed to be it."""

_SOURCE = Path(__file__).parents[1] / "src"
# The first exec may still be allowed to what the user is not: the interpreter has to start itself.
_TRIAL = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import cove.cli.main, httpx2"], check=True)
"""


def ordinary_python(directory: Path) -> tuple[str, ...]:
    """The start of its command line; makes it in `directory`. Skips the test where there is none."""
    if os.geteuid() != 0:
        return (sys.executable,)
    become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv (util-linux) to become an ordinary user")
    problem = ""
    for number, base in enumerate(dict.fromkeys((str(Path(sys.executable).resolve()), "/usr/bin/python3"))):
        target = directory / f"python{number}"
        made = subprocess.run([base, "-m", "venv", "--without-pip", str(target)], capture_output=True, check=False)
        if made.returncode == 0:
            packages = next(target.glob("lib/python3*/site-packages"))
            (packages / "all.pth").write_text("\n".join([str(_SOURCE), *site.getsitepackages()]) + "\n")
            command = (*become, str(target / "bin/python"))
            tried = subprocess.run([*command, "-c", _TRIAL], capture_output=True, check=False, timeout=30)
            if tried.returncode == 0:
                return command
            problem = tried.stderr.decode(errors="replace").strip()[-300:]
    pytest.skip(f"no Python here can be used by an ordinary user: {problem}")
