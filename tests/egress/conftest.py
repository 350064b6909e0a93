"""A sandbox's network without a sandbox: a captured network namespace on the machine of the test internet."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.captured_network import captured_network
from tests.internet import Internet, enter
from tests.internet_servers import NAMESERVER

from cove.egress.captured import CapturedSandbox
from cove.egress.carrying import Pipes
from cove.egress.resolving import Upstream
from cove.egress.termination import Termination
from cove.models.network import EnforcedPolicy, NetworkReport

SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Inside:
    """The network namespace, and who serves it.

    Attributes:
        namespace: descriptor.
        served: with the policy that `apply` was given last.
    """

    namespace: int
    served: CapturedSandbox
    authority: Path
    directory: Path

    def allow(
        self, *allow: str, deny: tuple[str, ...] = (), internal: tuple[str, ...] = (), mbps: int | None = None
    ) -> None:
        """Put a policy in force."""
        self.served.apply(EnforcedPolicy(allow=allow, deny=deny, internal=internal, network_mbps=mbps))

    async def settled(self) -> NetworkReport:
        """The report once all connections are noted: a program is gone a moment before that."""
        async with asyncio.timeout(SECONDS):
            while (report := self.served.report(after=0)).totals.open_connections:
                await asyncio.sleep(0.01)
        return report

    async def run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """A program inside, with our resolver as its name server."""
        resolv = self.directory / "resolv.conf"
        resolv.write_text("nameserver 192.0.2.53\noptions timeout:2 attempts:1\n", encoding="ascii")
        hosts = self.directory / "nsswitch.conf"
        hosts.write_text("hosts: dns\n", encoding="ascii")
        shell = f'mount --bind {resolv} /etc/resolv.conf && mount --bind {hosts} /etc/nsswitch.conf && exec "$@"'
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "sh", "-c", shell, "sh", *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: enter(self.namespace),
            pass_fds=[self.namespace],
            env={
                "PATH": os.environ["PATH"],
                "SSL_CERT_FILE": str(self.authority),
                "CURL_CA_BUNDLE": str(self.authority),
            },
        )
        try:
            async with asyncio.timeout(SECONDS):
                stdout, stderr = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    async def curl(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """curl, quiet, with the reason of a failure."""
        return await self.run("curl", "--silent", "--show-error", "--max-time", "10", *words)

    async def python(self, code: str) -> subprocess.CompletedProcess[bytes]:
        """A Python program."""
        return await self.run(sys.executable, "-c", code)


@pytest.fixture
async def inside(internet: Internet, tmp_path: Path) -> AsyncIterator[Inside]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(internet.on_machine())
        namespace, sockets = captured_network()
        stack.callback(os.close, namespace)
        pipes = Pipes()
        stack.callback(pipes.close)
        served = CapturedSandbox(sockets, Upstream((NAMESERVER,)), pipes, Termination())
        try:
            yield Inside(namespace, served, internet.certificate.authority, tmp_path)
        finally:
            await served.end()
