"""Connecting to places outside, on behalf of a sandbox."""

import asyncio
import socket
from collections.abc import Iterable
from typing import Final

from cove.egress.policy import ALLOWED, Policy, Verdict
from cove.models.addresses import IpAddress

CONNECT_SECONDS: Final = 10.0


class Unreachable(Exception):
    """Nothing was connected; the reason, in words."""


def is_own(address: IpAddress) -> bool:
    """Whether it is an address of this machine itself: the kernel would take it as its own source (nothing is sent)."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False
        return probe.getsockname()[0] == str(address)


def on_machine(policy: Policy, address: IpAddress, port: int) -> Verdict:
    """This machine's own addresses need the operator's word like private ones, also where they are public."""
    if not is_own(address) or any(rule.network and rule.matches_address(address, port) for rule in policy.internal):
        return ALLOWED
    return Verdict("its address is this machine's own")


async def dial(addresses: Iterable[IpAddress], port: int) -> socket.socket:
    """The first of `addresses` that accepts, in `CONNECT_SECONDS` for all of them.

    Raises:
        Unreachable: none does.
    """
    loop = asyncio.get_running_loop()
    reason = "it has no address"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            for address in addresses:
                family = socket.AF_INET if address.version == 4 else socket.AF_INET6
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                try:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await loop.sock_connect(sock, (str(address), port))
                except OSError as problem:
                    sock.close()
                    reason = problem.strerror or str(problem)
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
    except TimeoutError:
        raise Unreachable(f"no answer in {CONNECT_SECONDS:.0f} s") from None
    raise Unreachable(reason)
