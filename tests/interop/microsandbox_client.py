"""The unmodified `microsandbox` 0.1.8 in a process of its own: its dependencies are older than ours."""

import json
import os
import select
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from tests.e2e.running_server import clean_environment
from tests.interop.fixed_host import CLIENTS, require_client

from cove.sdk import ControlPlane

_SECONDS = 60.0
_DRIVER = Path(__file__).with_name("microsandbox_driver.py")


def end_all(url: str, key: str | None = None) -> None:
    """End every sandbox with a name: what clients stop, the server keeps with its files until its time is over."""
    with ControlPlane(base_url=url, api_key=key) as control:
        for info in list(control.in_namespace("*").sandboxes()):
            if info.name:
                control.in_namespace(str(info.namespace)).kill(info.id)


class Failed(Exception):
    """What the client raised."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Client:
    """A program that uses the client."""

    def __init__(self, process: subprocess.Popen[bytes], answers: int) -> None:
        self._process = process
        self._answers = answers

    @classmethod
    @contextmanager
    def started(cls, url: str, key: str | None = None) -> Generator[Self]:
        """With the server's address and key in the environment, as its documentation says."""
        require_client("microsandbox")
        reading, writing = os.pipe()
        variables = {"MSB_SERVER_URL": url, "ANSWER": str(writing), **({"MSB_API_KEY": key} if key else {})}
        process = subprocess.Popen(
            [str(CLIENTS / "microsandbox" / "bin" / "python"), str(_DRIVER)],
            stdin=subprocess.PIPE,
            pass_fds=[writing],
            cwd=_DRIVER.parent,
            env=clean_environment(**variables),
        )
        os.close(writing)
        try:
            yield cls(process, reading)
            assert process.stdin
            process.stdin.close()
            assert process.wait(_SECONDS) == 0
        finally:
            os.close(reading)
            process.kill()
            process.wait(_SECONDS)

    def do(self, what: str, sandbox: str, **order: Any) -> Any:
        """Have the program do something with the sandbox that it calls so.

        Raises:
            Failed: the client raised.
        """
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": what, "sandbox": sandbox, **order}).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._line())
        if "raised" in answer:
            raise Failed(answer["raised"], answer["text"])
        return answer["value"]

    def _line(self) -> bytes:
        deadline, line = time.monotonic() + _SECONDS, b""
        while not line.endswith(b"\n"):
            if not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                pytest.fail(f"no answer within {_SECONDS:g} s")
            piece = os.read(self._answers, 65536)
            if not piece:
                pytest.fail("the client's program ended")
            line += piece
        return line
