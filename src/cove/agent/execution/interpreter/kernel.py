"""The kernel process: takes calls from the agent, one after the other, and runs them in the shell."""

import asyncio
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from cove.agent.execution.frames import encode_frame
from cove.agent.execution.interpreter.call_scope import KernelEnvironment, working_directory
from cove.agent.execution.interpreter.displays import RichOutputs
from cove.agent.execution.interpreter.orphans import OrphanReaper
from cove.agent.execution.interpreter.script import begin_script, end_script
from cove.agent.execution.interpreter.shell import KernelShell, adopt_main, build_shell
from cove.agent.execution.interpreter.streams import StandardStreams
from cove.agent.execution.spawning import CONTROL_DESCRIPTOR, arrange_descriptors

INTERRUPTED = 128 + signal.SIGINT
_LENGTH = struct.Struct(">I")
_RECEIVE_BYTES = 256 * 1024
_DESCRIPTORS_OF_CALL = 2


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the agent.

    Attributes:
        environment: the sandbox's variables, when they have changed.
        variables: for this call only.
        script: the only call of this kernel.
        stdout, stderr: pipes of this call.
    """

    code: str
    workdir: str | None
    environment: Mapping[str, str] | None
    variables: Mapping[str, str]
    rich: bool
    result_limit: int
    script: bool
    stdout: int
    stderr: int


def run_kernel(control: int, environment: Mapping[str, str], workspace: str) -> NoReturn:
    """Never returns. To be called in a freshly forked process; `control` is its end of the channel."""
    arrange_descriptors(stdout=1, stderr=2, control=control)
    os.set_inheritable(CONTROL_DESCRIPTOR, False)
    _forget_event_loop()
    _reseed()
    kernel = Kernel(socket.socket(fileno=CONTROL_DESCRIPTOR), KernelEnvironment(environment))
    _enter(workspace)
    kernel.serve()


class Kernel:
    """Runs calls in the shell until the agent closes the channel."""

    def __init__(self, control: socket.socket, environment: KernelEnvironment) -> None:
        self._control = control
        self._environment = environment
        self._pid = os.getpid()
        self._running = False
        self._spare: list[int] = []
        self._streams = StandardStreams()
        self._rich = RichOutputs(self._send)
        self._orphans = OrphanReaper()
        self._shell: KernelShell = build_shell()
        self._shell.connect(self._rich, self._streams.errors)
        adopt_main(self._shell)
        self._streams.disconnect()
        self._orphans.install()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def serve(self) -> NoReturn:
        """Take calls; ends the process when the channel closes."""
        while True:
            call = self._receive()
            if call is None:
                os._exit(0)
            try:
                self._send(encode_frame(self._run(call)))
            except OSError:  # the program closed descriptors of ours, so there is no way to go on
                os._exit(128 + signal.SIGKILL)

    def _run(self, call: Call) -> dict[str, Any]:
        self._orphans.reap()
        self._streams.connect(call.stdout, call.stderr)
        self._reserve()
        self._shell.error_stream = self._streams.errors
        self._shell.last_result = None
        self._rich.begin(enabled=call.rich)
        self._shell.figures.begin()
        exit_code = self._in_scope(call)
        if os.getpid() != self._pid:
            os._exit(exit_code)  # a fork of the user's that came to the end of the code
        note = self._rich.note()
        if note is not None:
            self._streams.errors.write(note + "\n")
        self._streams.disconnect()
        result = self._shell.last_result
        return {
            "kind": "finished",
            "exit_code": exit_code,
            "result": None if result is None else result[: call.result_limit],
        }

    def _in_scope(self, call: Call) -> int:
        if call.environment is not None:
            self._environment.update(call.environment)
        try:
            with working_directory(call.workdir), self._environment.overlaid(call.variables):
                return self._execute(call)
        except OSError as problem:
            self._streams.errors.write(f"working directory: {problem}\n")
            return 1

    def _execute(self, call: Call) -> int:
        # A handler that an earlier call has left would make every later one deaf to timeouts.
        signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            self._running = True
            if call.script:
                begin_script()
            exit_code = _exit_code(self._shell.execute(call.code), script=call.script)
            if call.script:
                end_script()
            if os.getpid() == self._pid:
                self._shell.figures.finish(show=call.rich)
            self._running = False
            return exit_code
        except BaseException as problem:
            # An interrupt between two steps of the machinery, or a figure that cannot be drawn.
            self._running = False
            self._shell.showtraceback()
            return INTERRUPTED if call.script and isinstance(problem, KeyboardInterrupt) else 1

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._running:
            raise KeyboardInterrupt

    def _receive(self) -> Call | None:
        while self._spare:
            with suppress(OSError):  # the program closed it
                os.close(self._spare.pop())
        head, descriptors, _, _ = socket.recv_fds(self._control, _RECEIVE_BYTES, _DESCRIPTORS_OF_CALL)
        if not head or len(descriptors) != _DESCRIPTORS_OF_CALL:
            return None
        data = bytearray(head)
        while len(data) < _LENGTH.size or len(data) < _LENGTH.size + _LENGTH.unpack_from(data)[0]:
            chunk = self._control.recv(_RECEIVE_BYTES)
            if not chunk:
                return None
            data += chunk
        request = json.loads(data[_LENGTH.size :])
        return Call(**request, stdout=descriptors[0], stderr=descriptors[1])

    def _reserve(self) -> None:
        """Keep descriptors for the next call: a program that holds all others must not end its interpreter by that."""
        with suppress(OSError):
            while len(self._spare) < _DESCRIPTORS_OF_CALL:
                self._spare.append(os.dup(CONTROL_DESCRIPTOR))

    def _send(self, frame: bytes) -> None:
        self._control.sendall(frame)


def _exit_code(problem: BaseException | None, *, script: bool) -> int:
    if problem is None:
        return 0
    if script and isinstance(problem, KeyboardInterrupt):
        return INTERRUPTED
    if not isinstance(problem, SystemExit):
        return 1
    if problem.code is None:
        return 0
    return problem.code & 0xFF if isinstance(problem.code, int) else 1


def _forget_event_loop() -> None:
    # The agent's loop runs further up this very stack; in this process it is gone.
    asyncio._set_running_loop(None)
    asyncio.set_event_loop_policy(None)  # pyright: ignore[reportDeprecated]
    asyncio.set_event_loop(None)


def _reseed() -> None:
    """All sandboxes of a template, and all kernels of a sandbox, are forks of one process."""
    # `random` itself does so in every forked process.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _enter(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")
