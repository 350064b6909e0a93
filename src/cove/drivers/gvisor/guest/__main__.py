"""The program: import, wait for a birth message, become the agent.

What it imports is saved in a checkpoint while it waits, and every sandbox goes on from there: so all that must differ
between sandboxes is made after the wait. Standard input and output are pipes to the driver until the birth.
"""

import gc
import json
import os
import random
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from cove.agent.execution.prepare import prepare
from cove.agent.main import preload, run
from cove.drivers.gvisor.guest import protocol
from cove.drivers.gvisor.guest.privileges import become_user, drop_all, raise_kept
from cove.drivers.gvisor.guest.processes import limit_processes
from cove.drivers.gvisor.guest.protocol import Birth
from cove.linux.privileges import forbid_new_privileges
from cove.linux.process import set_dumpable

_SEED_BYTES: Final = 48


def main() -> NoReturn:
    """Arguments: the user inside, then the modules to import."""
    modules = sys.argv[2:]
    become_user(int(sys.argv[1]))
    prepare(modules)
    preload()
    os.unlink(protocol.PLACEHOLDER)
    gc.collect()
    gc.freeze()
    threads = len(os.listdir("/proc/self/task"))
    _say({"ready": True, "threads": threads, "failed": [name for name in modules if name not in sys.modules]})
    birth = _hear()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("draw new random seeds", _reseed),
        ("take up privileges", raise_kept),
        ("set the host name", lambda: socket.sethostname(birth.hostname)),
        ("limit processes", lambda: limit_processes(birth.processes)),
        ("set resource limits", lambda: _limit_resources(birth)),
        ("give up privileges", _give_up_privileges),
        ("enter the workspace", lambda: _enter(birth.boot.workspace)),
        ("listen", lambda: _listen(listener)),
    )
    for name, step in steps:
        try:
            step()
        except (OSError, ValueError) as problem:
            _say(protocol.failure(name, problem))
            os._exit(1)
    _say({"ok": True})
    _close_pipes()
    run(listener, birth.boot)


def _hear() -> Birth:
    """The birth message; the end of the input before it means that nobody is left to tell."""
    received = bytearray()
    while b"\n" not in received:
        data = os.read(0, protocol.MAX_LINE)
        if not data or len(received) > protocol.MAX_BIRTH:
            os._exit(1)
        received += data
    return Birth.model_validate_json(received.partition(b"\n")[0])


def _say(message: dict[str, Any]) -> None:
    try:
        os.write(1, json.dumps(message).encode() + b"\n")
    except OSError:
        os._exit(1)


def _reseed() -> None:
    """All sandboxes of a template go on from one memory image; fork(2)'s hooks did not run.

    OpenSSL's public and private generators take up a new seed of the primary one (RAND_add(3ssl)).
    """
    random.seed(os.urandom(_SEED_BYTES))
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(_SEED_BYTES), float(_SEED_BYTES))


def _limit_resources(birth: Birth) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (birth.open_files, birth.open_files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _give_up_privileges() -> None:
    os.umask(0o022)
    drop_all()
    forbid_new_privileges()
    # Same user as the code that will run here: it must not read or trace the agent.
    set_dumpable(False)


def _enter(workspace: str) -> None:
    """The user of a sandbox that was stopped may have closed the workspace to himself."""
    try:
        os.chdir(workspace)
    except PermissionError:
        os.chdir("/")


def _listen(listener: socket.socket) -> None:
    listener.bind(protocol.SOCKET)
    listener.listen(protocol.BACKLOG)


def _close_pipes() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    gc.enable()


if __name__ == "__main__":
    main()
