"""`get_preview_url` of the unmodified client gives a URL that works, with a domain and a certificate (layout D)."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.certificates import Signed, sign
from tests.e2e.running_server import RunningServer, data_directory, running_server
from tests.interop import hopx

DOMAIN = "cove.test"
START = """
import subprocess, sys, socket, time
subprocess.Popen([sys.executable, "-m", "http.server", "3000", "--directory", "/workspace"])
open("/workspace/found.txt", "w").write("found")
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    try:
        socket.create_connection(("127.0.0.1", 3000), 1).close()
        break
    except OSError:
        time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return sign(tmp_path_factory.mktemp("tls"), DOMAIN, f"*.{DOMAIN}")


@pytest.fixture(scope="module")
def domain_server(built_data_dir: Path, signed: Signed) -> Iterator[RunningServer]:
    options = ("--dev", "--domain", DOMAIN, "--tls-cert", str(signed.certificate), "--tls-key", str(signed.key))
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, *options) as running:
        yield running


@pytest.fixture(autouse=True)
def wildcard_names(monkeypatch: pytest.MonkeyPatch, signed: Signed) -> None:
    """What wildcard DNS and a CA file are on a machine."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        below = isinstance(name, str) and name.endswith(f".{DOMAIN}")
        return resolve("127.0.0.1" if below else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setenv("SSL_CERT_FILE", str(signed.authority))


def test_sync(domain_server: RunningServer) -> None:
    sandbox = hopx.client.Sandbox.create("base", timeout_seconds=300, base_url=domain_server.url, api_key=hopx.KEY)
    try:
        assert sandbox.run_code(START).success
        url = sandbox.get_preview_url(3000)
        assert url.startswith(f"https://3000-{sandbox.sandbox_id}.{DOMAIN}:")
        assert httpx2.get(f"{url}found.txt", timeout=30).text == "found"
        assert sandbox.agent_url.startswith(f"https://7777-{sandbox.sandbox_id}.{DOMAIN}:")
        assert httpx2.get(f"{sandbox.agent_url}health", timeout=30).status_code == 401
        sandbox.files.write("/workspace/second.txt", "second")
        assert httpx2.get(f"{url}second.txt", timeout=30).text == "second"
    finally:
        sandbox.kill()
        hopx.close(sandbox)
    assert httpx2.get(url, timeout=30).status_code == 404


@pytest.mark.anyio
async def test_async(domain_server: RunningServer) -> None:
    there = {"base_url": domain_server.url, "api_key": hopx.KEY}
    async with hopx.client.AsyncSandbox.create("base", timeout_seconds=300, **there) as sandbox:
        assert (await sandbox.run_code(START)).success
        url = await sandbox.get_preview_url(3000)
        async with httpx2.AsyncClient(timeout=30) as client:
            assert (await client.get(f"{url}found.txt")).text == "found"
        assert url.startswith(f"https://3000-{sandbox.sandbox_id}.{DOMAIN}:")
