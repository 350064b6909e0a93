"""A small internet of network namespaces, with real servers, for tests of what goes out.

`Internet.started()` gives two namespaces joined by a pair of interfaces: the internet, where every address is its own
and servers listen on all of them, and the machine, whose only way out leads there. What is tested runs on the machine.
Both go when nobody holds them any more. Needs root, and `ip` of iproute2.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import pytest
from tests import internet_servers
from tests.certificates import Signed, sign
from tests.internet_servers import NAMES, NOT_CERTIFIED

from cove.linux.calls import syscall
from cove.linux.clone import CLONE_NEWNET

MACHINE_ADDRESS: Final = "100.66.0.1"
READY_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Internet:
    """The two namespaces.

    Attributes:
        machine, outside: descriptors of the namespaces (namespaces(7)).
        certificate: of all `NAMES` but those `NOT_CERTIFIED`, with the authority that clients have to trust.
    """

    machine: int
    outside: int
    certificate: Signed

    @classmethod
    @contextlib.contextmanager
    def started(cls, directory: Path) -> Generator[Self]:
        """Make it, for the time of the block."""
        if os.geteuid() != 0 or not shutil.which("ip"):
            pytest.skip("needs root and the program ip (iproute2)")
        certificate = sign(directory, *(name for name in NAMES if name not in NOT_CERTIFIED))
        with contextlib.ExitStack() as stack:
            machine = stack.enter_context(_namespace())
            outside = stack.enter_context(_namespace())
            _join(machine, outside)
            servers = subprocess.Popen(
                [sys.executable, internet_servers.__file__, str(certificate.certificate), str(certificate.key)],
                stdout=subprocess.PIPE,
                preexec_fn=lambda: enter(outside),
                pass_fds=[outside],
            )
            stack.callback(_end, servers)
            assert servers.stdout
            stack.callback(servers.stdout.close)
            assert servers.stdout.readline() == b"ready\n"
            yield cls(machine, outside, certificate)

    @contextlib.contextmanager
    def on_machine(self) -> Generator[None]:
        """This thread is in the machine's namespace; sockets that it makes stay there."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(self.machine)
            yield
        finally:
            enter(own)
            os.close(own)


def enter(namespace: int) -> None:
    """setns(2) into a network namespace."""
    syscall("setns", namespace, CLONE_NEWNET)


@contextlib.contextmanager
def _namespace() -> Generator[int]:
    """A new network namespace with loopback up, held by a descriptor only."""
    reading, writing = os.pipe()
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; read -r _"],
        stdin=reading,
        stdout=subprocess.PIPE,
    )
    os.close(reading)
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"\n"
        holder.stdout.close()
        namespace = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writing)
        holder.wait(10)
    try:
        yield namespace
    finally:
        os.close(namespace)


def _join(machine: int, outside: int) -> None:
    commands_outside = (
        "ip link add to-machine type veth peer name to-internet",
        f"ip link set to-internet netns /proc/self/fd/{machine}",
        "ip address add 100.66.0.2/30 dev to-machine",
        "ip link set to-machine up",
        "ip route add local default dev lo",
        "ip -6 route add local 2a00::/12 dev lo",
        "ip -6 address add 2001:db8:66::2/64 dev to-machine nodad",
    )
    commands_machine = (
        f"ip address add {MACHINE_ADDRESS}/30 dev to-internet",
        "ip -6 address add 2001:db8:66::1/64 dev to-internet nodad",
        "ip link set to-internet up",
        "ip route add default via 100.66.0.2",
        "ip -6 route add default via 2001:db8:66::2",
    )
    for namespace, commands in ((outside, commands_outside), (machine, commands_machine)):
        for command in commands:
            subprocess.run(
                command.split(),
                check=True,
                timeout=10,
                pass_fds=[machine, outside],
                preexec_fn=lambda namespace=namespace: enter(namespace),
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)
