"""Names that third-party clients insist on, as `docs/domains.md` tells users to set them up: a resolver, a certificate.

Programs see the resolver in a mount namespace of their own, so nothing of the machine is changed, and the clients
themselves are not touched either.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.running_server import until

RESOLVER = "127.0.53.1"
ADDRESS = "127.0.53.2"
FIXED_HOST = "api.hopx.dev"
DOMAIN = "cove.test"


def require_names() -> None:
    """Skip where programs cannot be shown another resolver."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a mount namespace and ports 53 and 443")
    missing = [name for name in ("dnsmasq", "unshare") if shutil.which(name, path=f"{os.defpath}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install dnsmasq-base util-linux)")


@contextmanager
def resolver(directory: Path) -> Generator[tuple[str, ...]]:
    """A resolver that knows `FIXED_HOST` and everything below `DOMAIN`, all at `ADDRESS`.

    Yields the words to put before a command, so that the command asks this resolver and no other.
    """
    configuration = directory / "resolv.conf"
    configuration.write_text(f"nameserver {RESOLVER}\n")
    process = subprocess.Popen(
        [
            *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="),
            *("--bind-interfaces", f"--listen-address={RESOLVER}", "--port=53", "--user=root"),
            *(f"--address=/{name}/{ADDRESS}" for name in (DOMAIN, FIXED_HOST)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": f"{os.defpath}:/usr/sbin"},
    )
    try:
        until(lambda: _answers(process), seconds=10, what="the resolver answers")
        enter = f"mount --bind '{configuration}' /etc/resolv.conf && exec \"$@\""
        yield ("unshare", "--mount", "sh", "-c", enter, "sh")
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _answers(process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        pytest.fail(f"dnsmasq ended: {process.stderr and process.stderr.read().decode()}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((RESOLVER, 53)) == 0
