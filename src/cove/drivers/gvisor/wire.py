"""The network interface of a sandbox's kernel, and what it is connected to: nothing but the host's side of the wire.

    sandbox's kernel == eth0 ---- wire0 == host's kernel in the same network namespace == sockets of the host

`runsc` takes over what comes out of `eth0`, with its addresses and routes, as it finds them when it starts or restores.
The host's kernel refuses at once what arrives at `wire0`, until sockets are made there (`cove.host.capturing`). The
namespace ends with the processes of the sandbox, and nothing of it is on the host.
"""

import contextlib
from ipaddress import ip_interface
from pathlib import Path
from typing import Final

from cove.linux.clone import CLONE_NEWNET, unshare
from cove.linux.links import add_address, add_neighbour, add_route, bring_up, make_pair
from cove.linux.network import bring_loopback_up
from cove.linux.redirection import refuse_everything

_INSIDE, _OUTSIDE = "eth0", "wire0"
_HARDWARE: Final = (bytes.fromhex("02c07e000002"), bytes.fromhex("02c07e000001"))
"""Locally administered (IEEE 802), the same in every sandbox: nobody else is on the wire."""
_MTU: Final = 65000
"""No packet goes any further than this wire."""
_BEHIND_THE_HOSTS: Final = 4096
"""Metric of the route that is for the sandbox's kernel: for the host's every address is its own."""

# Of the ranges for documentation (RFC 5737, RFC 3849): they mean nothing outside, and policies cannot open them.
_V4, _V4_ROUTER = "192.0.2.2/32", "192.0.2.1"
_V6, _V6_ROUTER = "2001:db8:c07e::2/128", "2001:db8:c07e::1"

_SETTINGS: Final = {
    # Every address is the host's side's here: it would answer for all the world.
    "ipv4/icmp_echo_ignore_all": "1",
    "ipv6/icmp/echo_ignore_all": "1",
    # No address comes by itself: what `runsc` finds at the host's end of the wire it would take over too.
    "ipv6/conf/default/addr_gen_mode": "1",
}


def connect() -> None:
    """Move this process into a network namespace of its own, with both ends of a wire.

    Raises:
        OSError: the kernel has no veth, or no transparent proxying.
    """
    unshare(CLONE_NEWNET)
    bring_loopback_up()
    for name, value in _SETTINGS.items():
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys/net", name).write_text(value, encoding="ascii")
    make_pair(_INSIDE, _OUTSIDE, hardware=_HARDWARE, mtu=_MTU)
    refuse_everything(ignored=_INSIDE)
    for name in (_INSIDE, _OUTSIDE):
        bring_up(name)
    _address(_V4, _V4_ROUTER)
    if Path("/proc/sys/net/ipv6").exists():
        _address(_V6, _V6_ROUTER)


def _address(own: str, router: str) -> None:
    inside, beyond = ip_interface(own), ip_interface(router)
    add_address(_INSIDE, inside)
    add_route(_INSIDE, beyond)
    add_neighbour(_INSIDE, router, _HARDWARE[1])
    everywhere = ip_interface("0.0.0.0/0" if inside.version == 4 else "::/0")
    add_route(_INSIDE, everywhere, via=router, metric=_BEHIND_THE_HOSTS)
    add_route(_OUTSIDE, inside)
    add_neighbour(_OUTSIDE, str(inside.ip), _HARDWARE[0])
