"""A sandbox's network without a sandbox: a captured network namespace on the machine of the test internet."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
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
from cove.host.authority import load_authority
from cove.models.network import EnforcedPolicy, NetworkReport
from cove.models.secrets import EgressSecret

SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A program that is asked line by line."""

    process: asyncio.subprocess.Process

    async def ask(self, line: str) -> str:
        """Its answer; empty when it has ended."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n".encode())
        async with asyncio.timeout(SECONDS):
            return (await self.process.stdout.readline()).decode().strip()


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
    interpreter: str = sys.executable

    def use(self, *secrets: EgressSecret) -> None:
        """Put secrets in force."""
        self.served.use(secrets)

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
        process = await self._start(*words)
        try:
            async with asyncio.timeout(SECONDS):
                stdout, stderr = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    @contextlib.asynccontextmanager
    async def started(self, *words: str) -> AsyncGenerator[Asked]:
        """A program inside that answers each line with a line."""
        process = await self._start(*words)
        try:
            yield Asked(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    async def _start(self, *words: str) -> asyncio.subprocess.Process:
        resolv = self.directory / "resolv.conf"
        resolv.write_text("nameserver 192.0.2.53\noptions timeout:2 attempts:1\n", encoding="ascii")
        hosts = self.directory / "nsswitch.conf"
        hosts.write_text("hosts: dns\n", encoding="ascii")
        shell = f'mount --bind {resolv} /etc/resolv.conf && mount --bind {hosts} /etc/nsswitch.conf && exec "$@"'
        return await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "sh", "-c", shell, "sh", *words),
            stdin=subprocess.PIPE,
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
        termination = Termination([internet.certificate.authority.read_text(encoding="ascii")])
        own = load_authority(tmp_path)
        await termination.become(own.certificate, own.key)
        authorities = tmp_path / "authorities.pem"
        authorities.write_text(own.certificate + internet.certificate.authority.read_text("ascii"), encoding="ascii")
        served = CapturedSandbox(sockets, Upstream((NAMESERVER,)), pipes, termination)
        try:
            yield Inside(namespace, served, authorities, tmp_path)
        finally:
            await served.end()
