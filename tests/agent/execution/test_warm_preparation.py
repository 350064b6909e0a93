"""The state of the process that sandboxes are forked from."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    pass

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]


REPORT = """
import os, sys
from cove.agent.execution.prepare import prepare
before = set(os.listdir('/proc/self/fd'))
prepare(sys.argv[1:])
prepare(sys.argv[1:])
print(len(os.listdir('/proc/self/task')), end=' ')
print(sorted(set(os.listdir('/proc/self/fd')) - before), sys.modules['__main__'].before == before)
print(os.path.exists(os.path.join(os.environ['HOME'], '.ipython')))
"""


def report(home: str, *modules: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", REPORT, *modules],
        env={"HOME": home, "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )


def test_no_threads_no_files_no_profile(tmp_path: object) -> None:
    assert report(str(tmp_path), "json").stdout == "1 [] True\nFalse\n"


def test_modules_that_cannot_be_imported_are_told(tmp_path: object) -> None:
    ended = report(str(tmp_path), "no_such_module", "colorsys")
    assert "preload of no_such_module: ModuleNotFoundError" in ended.stderr


def test_libraries_with_worker_threads(tmp_path: object) -> None:
    for name in ("numpy", "pandas", "matplotlib.pyplot"):
        pytest.importorskip(name.partition(".")[0], reason=f"{name} is not installed here")
    assert report(str(tmp_path), "numpy", "pandas", "matplotlib.pyplot").stdout == "1 [] True\nFalse\n"
