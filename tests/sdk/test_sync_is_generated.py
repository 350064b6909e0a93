import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cove.sdk import (
    AsyncControlPlane,
    AsyncProcess,
    AsyncSandbox,
    AsyncTerminalConnection,
    ControlPlane,
    Process,
    Sandbox,
    TerminalConnection,
)
from cove.sdk._async.commands import AsyncCommands
from cove.sdk._async.files import AsyncFiles
from cove.sdk._async.terminal import AsyncTerminal
from cove.sdk._async.watching import AsyncWatch
from cove.sdk._sync.commands import Commands
from cove.sdk._sync.files import Files
from cove.sdk._sync.terminal import Terminal
from cove.sdk._sync.watching import Watch

ROOT = Path(__file__).resolve().parents[2]
PAIRS = [
    (AsyncSandbox, Sandbox),
    (AsyncControlPlane, ControlPlane),
    (AsyncProcess, Process),
    (AsyncTerminalConnection, TerminalConnection),
    (AsyncFiles, Files),
    (AsyncCommands, Commands),
    (AsyncTerminal, Terminal),
    (AsyncWatch, Watch),
]
ASYNC_ONLY = {"lease"}
"""A lease is a connection that has to be read beside everything else."""

RARELY_USED = ("websockets", "tarfile", "cove.models.frames", "cove.models.processes")


def test_generated_files_are_not_stale() -> None:
    command = [sys.executable, "tools/generate_sync_sdk.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_both_clients_have_the_same_names_and_arguments(asynchronous: type, blocking: type) -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        public = {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}
        return {name: _arguments(member) for name, member in public.items() if callable(member)}

    expected = {("close" if name == "aclose" else name): value for name, value in surface(asynchronous).items()}
    assert surface(blocking) == {name: value for name, value in expected.items() if name not in ASYNC_ONLY}


def _arguments(function: Callable[..., Any]) -> list[str]:
    return [str(parameter).split(":", 1)[0] for parameter in inspect.signature(function).parameters.values()]


def test_importing_the_package_does_not_load_the_client() -> None:
    code = (
        "import sys, cove; cove.__version__;"
        "print([name for name in ('httpx2', 'pydantic', 'asyncio', 'cove.sdk') if name in sys.modules]);"
        "print(cove.Sandbox.__module__, cove.AsyncSandbox.__module__, cove.CoveError.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["[]", "cove.sdk._sync.sandbox cove.sdk._async.sandbox CoveError"]


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import cove

    with pytest.raises(AttributeError, match="Sandpit"):
        _ = cove.Sandpit


def test_every_exported_name_exists() -> None:
    import cove
    from cove import sdk

    for module in (cove, sdk):
        assert module.__all__ == sorted(module.__all__)
        assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="Sandpit"):
        _ = sdk.Sandpit


def test_blocking_code_loads_no_event_loop() -> None:
    code = (
        "import sys, cove; cove.Sandbox;print([name for name in ('asyncio', 'cove.sdk._async') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_what_is_rarely_used_is_loaded_when_it_is_used() -> None:
    code = (
        "import sys, cove; cove.Sandbox; cove.AsyncSandbox;"
        f"print([name for name in {RARELY_USED!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
