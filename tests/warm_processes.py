"""Programs that start in milliseconds: forked from one that has imported what they need."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

FORKER = Path(__file__).with_name("warm_program.py")
START_SECONDS = 60.0
DESCRIPTOR = "<descriptor>"


class WarmProgram:
    """Runs `entry` (`module:function`), each time in a process of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._forker: subprocess.Popen[bytes] | None = None
        self._orders = -1

    @classmethod
    @contextmanager
    def ready(
        cls,
        entry: str,
        *modules: str,
        python: str = sys.executable,
        before: Sequence[str] = (),
        environment: Mapping[str, str],
    ) -> Generator[Self]:
        """`modules` are imported first; `before` goes before the command."""
        program = cls((*before, python, str(FORKER), DESCRIPTOR, entry, *modules), environment)
        try:
            yield program
        finally:
            program._end()

    def _started(self) -> int:
        """Where orders go. What programs are forked from starts when it is needed, and again if somebody ended it."""
        if self._forker is None or self._forker.poll() is not None:
            self._end()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._orders = ours.detach()
                self._forker = subprocess.Popen(
                    [word if word != DESCRIPTOR else str(theirs.fileno()) for word in self._command],
                    stdin=subprocess.DEVNULL,
                    env=self._environment,
                    pass_fds=[theirs.fileno()],
                )
        return self._orders

    def _end(self) -> None:
        if self._forker is not None:
            os.close(self._orders)
            self._forker.kill()
            self._forker.wait(START_SECONDS)
            self._forker = None

    def run(
        self, *arguments: str, stdin: bytes, seconds: float, environment: Mapping[str, str], directory: Path
    ) -> subprocess.CompletedProcess[bytes]:
        """As `subprocess.run` with `capture_output`."""
        order = {"arguments": arguments, "environment": dict(environment), "directory": str(directory)}
        deadline = time.monotonic() + seconds
        (given, giving), (hearing, out), (noting, err), (reading, report) = (os.pipe() for _ in range(4))
        try:
            with socket.fromfd(self._started(), socket.AF_UNIX, socket.SOCK_SEQPACKET) as orders:
                socket.send_fds(orders, [json.dumps(order).encode()], [given, out, err, report])
        finally:
            for descriptor in (given, out, err, report):
                os.close(descriptor)
        with ThreadPoolExecutor(3) as threads:
            threads.submit(_give, giving, stdin)
            said, noted = threads.submit(_all_of, hearing), threads.submit(_all_of, noting)
            code = _exit_code(reading, deadline)
            return subprocess.CompletedProcess(arguments, code, said.result(seconds), noted.result(seconds))


def _give(descriptor: int, content: bytes) -> None:
    with open(descriptor, "wb") as pipe, suppress(BrokenPipeError):
        pipe.write(content)


def _all_of(descriptor: int) -> bytes:
    with open(descriptor, "rb") as pipe:
        return pipe.read()


def _exit_code(report: int, deadline: float) -> int:
    program = 0
    try:
        program = _number(report, deadline + START_SECONDS)
        return _number(report, deadline)
    except TimeoutError:
        if program:
            with suppress(ProcessLookupError):
                os.kill(program, signal.SIGKILL)
        raise
    finally:
        os.close(report)


def _number(report: int, deadline: float) -> int:
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([report], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        piece = os.read(report, 1)
        assert piece, "what programs are forked from has ended"
        line += piece
    return int(line)
