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


class WarmProgram:
    """Runs `entry` (`module:function`), each time in a process of its own."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders

    @classmethod
    @contextmanager
    def started(
        cls,
        entry: str,
        *modules: str,
        python: str = sys.executable,
        before: Sequence[str] = (),
        environment: Mapping[str, str],
    ) -> Generator[Self]:
        """`modules` are imported at once; `before` goes before the command."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                forker = subprocess.Popen(
                    [*before, python, str(FORKER), str(theirs.fileno()), entry, *modules],
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=[theirs.fileno()],
                )
            try:
                yield cls(ours)
            finally:
                forker.kill()
                forker.wait(START_SECONDS)

    def run(
        self, *arguments: str, stdin: bytes, seconds: float, environment: Mapping[str, str], directory: Path
    ) -> subprocess.CompletedProcess[bytes]:
        """As `subprocess.run` with `capture_output`."""
        order = {"arguments": arguments, "environment": dict(environment), "directory": str(directory)}
        deadline = time.monotonic() + seconds
        (given, giving), (hearing, out), (noting, err), (reading, report) = (os.pipe() for _ in range(4))
        try:
            socket.send_fds(self._orders, [json.dumps(order).encode()], [given, out, err, report])
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
