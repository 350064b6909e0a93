"""A server that answers for the name which some clients have built in, and the programs that ask it."""

import http.client
import json
import os
import select
import socket
import ssl
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from tests.certificates import Signed
from tests.e2e.running_server import RunningServer, clean_environment
from tests.interop.names import ADDRESS, DOMAIN, FIXED_HOST
from tests.warm_processes import WarmProgram

CLIENTS = Path(__file__).resolve().parents[2] / ".venv" / "clients"
SECONDS = 60.0


class FixedHost(NamedTuple):
    """What a client has to be given: `enter` goes before its command, `environment` around it."""

    server: RunningServer
    certificates: Signed
    enter: tuple[str, ...]
    key: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Only what the recipe names, beside a key and a home of its own."""
        authority = str(self.certificates.authority)
        return clean_environment(
            SSL_CERT_FILE=authority,
            NODE_EXTRA_CA_CERTS=authority,
            HOPX_API_KEY=self.key,
            HOME=str(self.home),
            PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring",
            PYTHONWARNINGS="ignore",
            COLUMNS="200",
            NO_COLOR="1",
        )

    def hopx_api(self, method: str, path: str, body: object = None) -> Any:
        """What the control plane answers, asked directly."""
        context = ssl.create_default_context(cafile=str(self.certificates.authority))
        connection = http.client.HTTPSConnection(ADDRESS, 443, timeout=20, context=context)
        connection.sock = context.wrap_socket(socket.create_connection((ADDRESS, 443), 20), server_hostname=FIXED_HOST)
        try:
            headers = {"Host": FIXED_HOST, "X-API-Key": self.key, "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


class HopxCli(NamedTuple):
    """`hopx-cli` against a server."""

    host: FixedHost
    program: WarmProgram

    @classmethod
    @contextmanager
    def warm(cls, host: FixedHost) -> Generator[Self]:
        """What it imports at each start takes longer than any of its commands: here it is imported once."""
        python = str(CLIENTS / "hopx-cli" / "bin" / "python")
        entry, before = "hopx_cli.main:app", host.enter
        with WarmProgram.ready(
            entry, "hopx_cli.main", python=python, before=before, environment=host.environment
        ) as it:
            yield cls(host, it)

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """One command."""
        environment, home = self.host.environment, self.host.home
        done = self.program.run(
            *arguments, stdin=stdin.encode(), seconds=SECONDS, environment=environment, directory=home
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def run_anew(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command, by the program that users start."""
        return subprocess.run(
            [*self.host.enter, str(CLIENTS / "hopx-cli" / "bin" / "hopx"), *arguments],
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env=self.host.environment,
            cwd=self.host.home,
        )


def server_options(certificates: Signed) -> tuple[str, ...]:
    """How `cove serve` is told to answer for the fixed name and to have addresses below a domain."""
    return (
        *("--host", ADDRESS, "--port", "443", "--domain", DOMAIN, "--allow-host", FIXED_HOST),
        *("--tls-cert", str(certificates.certificate), "--tls-key", str(certificates.key)),
    )


class McpServer:
    """`hopx-mcp` with a client of its own, kept open."""

    def __init__(self, process: subprocess.Popen[str], answers: int) -> None:
        self._process = process
        self._answers = answers
        self._pending = b""
        self.offer = self._read()

    @classmethod
    @contextmanager
    def started(cls, host: FixedHost) -> Generator[Self]:
        """It ends with the block."""
        python = CLIENTS / "hopx-mcp" / "bin" / "python"
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [*host.enter, str(python), str(Path(__file__).with_name("mcp_driver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**host.environment, "ANSWER": str(writing)},
            pass_fds=(writing,),
        )
        os.close(writing)
        try:
            yield cls(process, reading)
        finally:
            process.communicate(timeout=20)
            os.close(reading)

    def call(self, tool: str, **arguments: Any) -> Any:
        """The JSON that the tool answers with."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"tool": tool, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        assert not answer["is_error"], answer["text"]
        return json.loads(answer["text"])

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._answers], [], [], SECONDS)
            assert ready, "hopx-mcp did not answer in time"
            more = os.read(self._answers, 1 << 20)
            assert more, f"hopx-mcp ended with {self._process.poll()}"
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)


def require_client(name: str) -> None:
    """Skip where a client is not installed."""
    if not (CLIENTS / name / "installed").exists():
        pytest.skip(f"{name} is not installed: scripts/interop-clients says what it needs")
