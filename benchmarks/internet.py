"""A small internet on this machine alone: a network namespace with servers, and one whose only way out leads there.

Needs root and `ip` of iproute2. Nothing of it is left at the end: the namespaces go with the descriptors.
"""

import contextlib
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks import internet_server
from cove.linux.calls import syscall
from cove.linux.clone import CLONE_NEWNET

NAME: Final = "server.example"
ADDRESS: Final = "93.184.216.34"
NAMESERVER: Final = "9.9.9.9"
_SECONDS: Final = 20.0


def why_not() -> str:
    """What is missing; empty when nothing is."""
    if os.geteuid() != 0:
        return "needs root"
    return "" if shutil.which("ip") and shutil.which("unshare") else "needs ip (iproute2) and unshare (util-linux)"


@contextlib.contextmanager
def on_the_internet() -> Generator[None]:
    """This thread, and every program that it starts meanwhile, is on a machine whose way out leads to the servers."""
    with contextlib.ExitStack() as stack:
        machine = stack.enter_context(_namespace())
        outside = stack.enter_context(_namespace())
        _join(machine, outside)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate = directory / "server.pem"
        certificate.write_bytes(_certificate())
        stack.enter_context(_server(outside, certificate))
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, own)
        stack.callback(_enter, own)
        _enter(machine)
        yield


def _enter(namespace: int) -> None:
    syscall("setns", namespace, CLONE_NEWNET)


@contextlib.contextmanager
def _namespace() -> Generator[int]:
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; read -r _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout
        holder.stdout.readline()
        namespace = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield namespace
    finally:
        os.close(namespace)


def _join(machine: int, outside: int) -> None:
    here = (
        "ip link add to-machine type veth peer name to-internet",
        f"ip link set to-internet netns /proc/self/fd/{machine}",
        "ip address add 100.66.0.2/30 dev to-machine",
        "ip link set to-machine up",
        "ip route add local default dev lo",
    )
    there = (
        "ip address add 100.66.0.1/30 dev to-internet",
        "ip link set to-internet up",
        "ip route add default via 100.66.0.2",
    )
    for namespace, commands in ((outside, here), (machine, there)):
        for command in commands:
            subprocess.run(
                command.split(),
                check=True,
                timeout=_SECONDS,
                pass_fds=[machine],
                preexec_fn=lambda namespace=namespace: _enter(namespace),
            )


@contextlib.contextmanager
def _server(outside: int, certificate: Path) -> Generator[None]:
    words = [sys.executable, internet_server.__file__, str(certificate), NAMESERVER, NAME, ADDRESS]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, preexec_fn=lambda: _enter(outside))
    with server:
        try:
            assert server.stdout
            server.stdout.readline()
            yield
        finally:
            server.kill()


def _certificate() -> bytes:
    """Self-signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + signed.public_bytes(serialization.Encoding.PEM)
