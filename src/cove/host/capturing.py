"""Capturing what a sandbox sends, from the host: the sockets are made by us, inside its network namespace.

Nobody in the sandbox ever holds them, so nobody can put them in the way of whoever serves them (a listening socket that
blocks, for example).
"""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from cove.linux.clone import CLONE_NEWNET, CLONE_NEWUSER, pid_of_pidfd
from cove.linux.namespaces import enter_namespaces
from cove.linux.network import bring_loopback_up
from cove.linux.redirection import redirect_everything
from cove.models.errors import error

_SECONDS: Final = 10.0
_MOST_SOCKETS: Final = 8


async def capture(pidfd: int) -> list[socket.socket]:
    """Redirect everything that leaves the network namespace of a process; its sockets, closed.

    Args:
        pidfd: of a process in the namespace.

    Raises:
        CoveError: UNSUPPORTED: this kernel has no transparent proxying; SANDBOX_NOT_FOUND: the process has ended.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            if os.geteuid() == 0:
                return await _in_thread(lambda: _captured(pidfd, CLONE_NEWNET))
            return await _by_helper(pidfd)
    except ProcessLookupError as problem:
        raise error("SANDBOX_NOT_FOUND", "The sandbox has ended.") from problem
    except (OSError, TimeoutError) as problem:
        raise error(
            "UNSUPPORTED",
            f"A sandbox cannot have a network on this machine: {problem}.",
            remedy="The kernel needs nf_tables with transparent proxying (CONFIG_NFT_TPROXY): `modprobe nft_tproxy`.",
        ) from problem


def _captured(pidfd: int, kinds: int) -> list[socket.socket]:
    enter_namespaces(pidfd, kinds)
    bring_loopback_up()
    return list(redirect_everything().all)


async def _in_thread(work: Callable[[], list[socket.socket]]) -> list[socket.socket]:
    """On a thread that ends afterwards: it does not come back from where it goes (setns(2) is per thread)."""
    done: Future[list[socket.socket]] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as problem:
            done.set_exception(problem)

    threading.Thread(target=run, name="cove-capture", daemon=True).start()
    return await asyncio.wrap_future(done)


async def _by_helper(pidfd: int) -> list[socket.socket]:
    """An ordinary user has to enter the user namespace as well, which a process with threads cannot."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            helper = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cove.host.capturing", str(pidfd), str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[pidfd, theirs.fileno()],
            )
        _, words = await helper.communicate()
        if helper.returncode:
            if pid_of_pidfd(pidfd) < 0:
                raise ProcessLookupError
            raise OSError(words.decode(errors="replace").strip().rpartition("\n")[2][:300])
        _, descriptors, _, _ = socket.recv_fds(ours, 1, _MOST_SOCKETS)
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def main() -> None:
    """The helper: `python -m cove.host.capturing PIDFD CHANNEL`."""
    pidfd, channel = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    sockets = _captured(pidfd, CLONE_NEWUSER | CLONE_NEWNET)
    socket.send_fds(channel, [b"!"], [sock.fileno() for sock in sockets])


if __name__ == "__main__":
    main()
