"""Imports what a Python program needs, once, and runs the program in a fork whenever that is asked for.

A program of its own, also for interpreters of other environments: `ARGV: DESCRIPTOR MODULE:FUNCTION MODULE...`.
Every run has its own descriptors, environment, directory and arguments, and ends as the program ends.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, NoReturn

MAX_ORDER_BYTES = 1 << 20


def main() -> None:
    """Serve orders until nobody can give any."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[3:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    waiters = 0
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, MAX_ORDER_BYTES, 4)
        if not order:
            os._exit(0)
        if os.fork() == 0:
            orders.close()
            _wait_for_program(json.loads(order), descriptors)
        waiters += 1
        for descriptor in descriptors:
            os.close(descriptor)
        while waiters and os.waitpid(-1, os.WNOHANG)[0]:
            waiters -= 1


def _wait_for_program(order: dict[str, Any], descriptors: list[int]) -> None:
    """Say which process runs the program, and how it has ended. Only the program itself returns from here."""
    report = descriptors[3]
    program = os.fork()
    if program == 0:
        os.close(report)
        _run(order, descriptors[:3])
    for descriptor in descriptors[:3]:
        os.close(descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(report, b"%d\n" % program)
    os.write(report, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]))
    os._exit(0)


def _run(order: dict[str, Any], streams: list[int]) -> NoReturn:
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # New ones: those there are remember what kind of file they were opened on.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["directory"])
    module, _, function = sys.argv[2].partition(":")
    sys.argv = [module, *order["arguments"]]
    code = 1
    try:
        sys.exit(getattr(importlib.import_module(module), function)())
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else bool(ended.code)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        _end(code)


def _end(code: int) -> NoReturn:
    """As at the end of every program, but without taking the interpreter apart, which costs more than it has run."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
