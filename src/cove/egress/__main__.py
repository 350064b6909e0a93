"""The program: `python -m cove.egress`."""

import argparse
import asyncio
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from cove.egress.program import EgressProgram
from cove.egress.resolving import Upstream
from cove.egress.termination import Termination
from cove.linux.privileges import drop_bounding_set, drop_capabilities, forbid_new_privileges, last_capability
from cove.linux.process import set_dumpable
from cove.program_logs import log_to_stderr


def main() -> int:
    """Parse arguments, become nobody in particular, run until told to end."""
    parser = argparse.ArgumentParser(prog="cove egress", description=__doc__)
    parser.add_argument("--listen-fd", type=int, required=True, help="where the host daemon calls (see wire.py)")
    parser.add_argument("--for", help="whose way out this is, for lists of processes")
    parser.add_argument("--tether-fd", type=int, default=-1, help="end when this descriptor reads its end")
    parser.add_argument("--nameserver", action="append", default=[], help="address, or address:port; repeatable")
    parser.add_argument("--trust", action="append", default=[], help="file of certificates (PEM) that vouch for hosts")
    parser.add_argument("--user", type=int, default=-1, help="user and group id to take on, where it is root")
    arguments = parser.parse_args()
    log_to_stderr()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    trusted = [Path(file).read_text(encoding="ascii", errors="replace") for file in arguments.trust]
    if arguments.user >= 0 and os.geteuid() == 0:
        _become(arguments.user)
    if os.fork():  # whoever has started it may end, and it goes on: it is nobody's child
        os._exit(0)
    asyncio.run(_run(arguments, trusted))
    return 0


def _become(user: int) -> None:
    drop_bounding_set(last_capability())
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    drop_capabilities()
    forbid_new_privileges()
    set_dumpable(False)


async def _run(arguments: argparse.Namespace, trusted: list[str]) -> None:
    program = EgressProgram(Upstream(tuple(arguments.nameserver)), Termination(trusted))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.end)
    if arguments.tether_fd >= 0:
        loop.add_reader(arguments.tether_fd, program.end)
    await program.run(socket.socket(fileno=arguments.listen_fd))


if __name__ == "__main__":
    sys.exit(main())
