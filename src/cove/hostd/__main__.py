"""The daemon's program: `python -m cove.hostd`."""

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import NoReturn

import structlog

from cove.host.claims import claim
from cove.hostd.assembly import build_host, clean_after_dead
from cove.hostd.daemon import Daemon
from cove.hostd.local_host import CEILINGS
from cove.hostd.names import LOCK_NAME, SERVERS_CHILD, SOCKET_NAME
from cove.linux.process import descendants_of
from cove.models.errors import CoveError
from cove.program_logs import log_to_stderr

_log = structlog.get_logger("cove.hostd")


def main() -> int:
    """Parse arguments, run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="cove hostd", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--isolation", default="auto")
    parser.add_argument("--max-sandboxes", type=int, default=1000)
    parser.add_argument("--keep-sandboxes", action="store_true", help="leave sandboxes running at a graceful end")
    parser.add_argument("--ready-fd", type=int, default=-1, help="descriptor that gets one byte when all is ready")
    parser.add_argument(
        "--tether-fd",
        type=int,
        default=-1,
        help="end when this descriptor reads its end, with the sandboxes started meanwhile; those found stay",
    )
    parser.add_argument("--server-uid", type=int, help="the user, beside root, who may call this and sandboxes' agents")
    parser.add_argument("--allow-internal", action="append", default=[], help="a rule: open though not public")
    parser.add_argument("--nameserver", action="append", default=[], help="for sandboxes, instead of this machine's")
    parser.add_argument("--egress-log", type=Path, help="file for all that sandboxes do on the network")
    parser.add_argument("--egress-trust", type=Path, help="file of authorities (PEM) that vouch for private servers")
    for name in CEILINGS:
        parser.add_argument(f"--max-{name.replace('_', '-')}", type=int, help="the most that a sandbox may be given")
    arguments = parser.parse_args()
    log_to_stderr()
    _allow_many_descriptors()
    try:
        asyncio.run(_run(arguments))
    except CoveError as problem:
        sys.stderr.write(f"cove hostd: {problem}\n")
        return 1
    return 0


def _allow_many_descriptors() -> None:
    """Each sandbox takes one, each client some more: the usual soft limit of 1024 is too low."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _run(arguments: argparse.Namespace) -> None:
    host = build_host(
        arguments.data_dir,
        isolation=arguments.isolation,
        max_sandboxes=arguments.max_sandboxes,
        ceilings={name: most for name in CEILINGS if (most := getattr(arguments, f"max_{name}")) is not None},
        server_uid=arguments.server_uid,
        internal=arguments.allow_internal,
        nameservers=arguments.nameserver,
        egress_log=arguments.egress_log,
        egress_trust=arguments.egress_trust,
    )
    # Two daemons on one data directory would destroy each other's sandboxes.
    role = SERVERS_CHILD if arguments.ready_fd >= 0 else ""
    with claim(arguments.data_dir / "run" / LOCK_NAME, who="host daemon", role=role):
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if arguments.tether_fd >= 0:
            loop.add_reader(arguments.tether_fd, stop.set)
        await host.open()
        await clean_after_dead(arguments.data_dir)
        daemon = Daemon(host, server_uid=arguments.server_uid)
        await daemon.listen(arguments.data_dir / "run" / SOCKET_NAME)
        _log.info("hostd_ready", pid=os.getpid(), data_dir=str(arguments.data_dir))
        if arguments.ready_fd >= 0:
            with contextlib.suppress(BrokenPipeError):  # the server has died meanwhile
                os.write(arguments.ready_fd, b"!")
            os.close(arguments.ready_fd)
        await stop.wait()
        if arguments.tether_fd >= 0:
            loop.remove_reader(arguments.tether_fd)
        await daemon.close()
        await host.close(destroy=not arguments.keep_sandboxes, keep_stopped=True, keep_adopted=arguments.tether_fd >= 0)
        _log.info("hostd_ended")
        _end_at_once()


def _end_at_once() -> NoReturn:
    """A template may be being built, in a thread that would be waited for, by programs that would go on: nobody needs
    them any more, and the next build begins where this one was. Sandboxes and warm processes are no descendants."""
    for pid in descendants_of(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
