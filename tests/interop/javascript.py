"""Programs for the unmodified JavaScript clients, in a Node of their own."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).resolve().parents[2] / ".venv" / "clients" / "javascript"
DRIVER = Path(__file__).with_name("javascript_driver.cjs")
KEY = "unused-with-dev"
SECONDS = 50.0


class JavaScript:
    """Runs programs against one server."""

    def __init__(self, base_url: str, key: str = KEY, **environment: str) -> None:
        self._environment = {**os.environ, "CLIENTS": str(CLIENTS), "BASE_URL": base_url, "KEY": key, **environment}

    def run(self, program: str, *, seconds: float = SECONDS, prefix: tuple[str, ...] = ()) -> Any:
        """What the body of an async function returned.

        In scope are `hopx` (the SDK), `there` (its `apiKey` and `baseURL`), `create(options)`, whose sandboxes are
        killed at the end, and `refused(call)`, which returns the facts of the error that a call must raise.
        """
        reading, writing = os.pipe()
        with open(reading, encoding="utf-8") as answer:
            try:
                done = subprocess.run(
                    [*prefix, "node", str(DRIVER)],
                    input=program.encode(),
                    capture_output=True,
                    timeout=seconds,
                    check=False,
                    env={**self._environment, "ANSWER": str(writing)},
                    pass_fds=(writing,),
                )
            finally:
                os.close(writing)
            said = answer.read()
        assert said, f"node ended with {done.returncode}: {done.stderr.decode()[-3000:]}"
        result = json.loads(said)
        assert "value" in result, result["thrown"]
        return result["value"]


def require_javascript() -> None:
    """Skip where Node or the clients are not installed."""
    if shutil.which("node") is None or not (CLIENTS / "installed").exists():
        pytest.skip("the JavaScript clients are not installed: needs node and npm, then scripts/interop-clients")
