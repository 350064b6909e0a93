"""The client's view of a sandbox's life, against a real server."""

import time

import httpx2
import pytest
from tests.e2e.running_server import RunningServer

from cove import AsyncSandbox
from cove.models.errors import Conflict, InvalidRequest, NotFound, PlatformFailure
from cove.models.sandboxes import SandboxStatus
from cove.sdk import AsyncControlPlane

pytestmark = pytest.mark.anyio  # async only

WEB = """
import http.server
http.server.test(http.server.SimpleHTTPRequestHandler, port=8000, bind="127.0.0.1")
"""


@pytest.fixture(autouse=True)
def use_the_server(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_BASE_URL", server.url)
    monkeypatch.delenv("COVE_API_KEY", raising=False)


async def test_a_stopped_sandbox_keeps_its_disk(as_root: None) -> None:
    async with AsyncSandbox.create("base") as sandbox:
        await sandbox.files.write("kept.txt", "kept")
        await sandbox.stop()
        assert sandbox.info.status is SandboxStatus.STOPPED
        assert (await sandbox.wait_until("stopped")).status is SandboxStatus.STOPPED
        with pytest.raises(Conflict, match="stopped"):
            await AsyncSandbox.connect(sandbox.sandbox_id)
        with pytest.raises(Conflict, match="stopped"):
            await sandbox.ensure_healthy()
        await sandbox.start()
        assert await sandbox.files.read("kept.txt") == "kept"
        assert sandbox.info.status is SandboxStatus.RUNNING


async def test_waiting_for_the_end() -> None:
    async with AsyncSandbox.create("base") as sandbox, AsyncControlPlane() as control:
        with pytest.raises(PlatformFailure, match="is running") as caught:
            await sandbox.wait(timeout=0.1)
        assert caught.value.code == "TIMEOUT"
        await control.kill(sandbox.sandbox_id)
        await sandbox.wait(timeout=10)
        assert sandbox.info.status is SandboxStatus.DELETED
        with pytest.raises(NotFound):
            await sandbox.wait_until("running")
        with pytest.raises(InvalidRequest, match="no status"):
            await sandbox.wait_until("happy")
        assert not await sandbox.is_healthy()


async def test_the_deadline() -> None:
    async with AsyncSandbox.create("base", timeout_seconds=100) as sandbox:
        left = await sandbox.get_time_to_expiry()
        assert left is not None
        assert 90 <= left <= 100
        assert await sandbox.is_expiring_soon()
        assert not await sandbox.is_expiring_soon(30)
        expiry = await sandbox.get_expiry_info()
        assert (expiry.has_timeout, expiry.is_expired, expiry.is_expiring_soon) == (True, False, True)
        await sandbox.set_timeout(0)
        assert await sandbox.get_time_to_expiry() is None
        assert not (await sandbox.get_expiry_info()).has_timeout


async def test_a_port_is_reached_at_its_preview_url() -> None:
    async with AsyncSandbox.create() as sandbox:
        await sandbox.files.write("hello.txt", "from inside")
        await sandbox.run_code_background(WEB, timeout=60)
        url = await sandbox.get_preview_url(8000)
        deadline = time.monotonic() + 20
        with httpx2.Client(trust_env=False, timeout=10, verify=False) as client:
            while (answer := client.get(f"{url}hello.txt")).status_code != 200:
                assert time.monotonic() < deadline, answer.text
            assert answer.text == "from inside"
            agent = await sandbox.get_preview_url() + "health"
            assert client.get(agent).status_code == 401
            headers = {"Authorization": "Bearer " + await sandbox.get_token()}
            assert client.get(agent, headers=headers).status_code == 200
        for port in (0, 65536, -1):
            with pytest.raises(InvalidRequest, match="port"):
                await sandbox.get_preview_url(port)


async def test_what_the_agent_keeps_and_runs() -> None:
    async with AsyncSandbox.create() as sandbox:
        await sandbox.ensure_healthy()
        assert "hits" in await sandbox.cache.stats()
        assert (await sandbox.cache.clear())["success"] is True
        await sandbox.run_code("1")
        (session,) = await sandbox.get_jupyter_sessions()
        assert session["execution_state"] == "idle"
        assert (await sandbox.get_agent_metrics())["uptime_seconds"] > 0
        features = (await sandbox.get_agent_info()).features
        assert (features["background"], features["streaming"], features["terminal"]) == (True, True, True)
