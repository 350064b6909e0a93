# Generated from tests/e2e/test_sdk_async_lifecycle.py by tools/generate_sync_sdk.py. Do not edit.

"""The client's view of a sandbox's life, against a real server."""

import time

import httpx2
import pytest
from tests.e2e.running_server import RunningServer

from cove import Sandbox
from cove.models.errors import Conflict, InvalidRequest, NotFound, PlatformFailure
from cove.models.sandboxes import SandboxStatus
from cove.sdk import ControlPlane

WEB = """
import http.server
http.server.test(http.server.SimpleHTTPRequestHandler, port=8000, bind="127.0.0.1")
"""


@pytest.fixture(autouse=True)
def use_the_server(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_BASE_URL", server.url)
    monkeypatch.delenv("COVE_API_KEY", raising=False)


def test_a_stopped_sandbox_keeps_its_disk(as_root: None) -> None:
    with Sandbox.create("base") as sandbox:
        sandbox.files.write("kept.txt", "kept")
        sandbox.stop()
        assert sandbox.info.status is SandboxStatus.STOPPED
        assert (sandbox.wait_until("stopped")).status is SandboxStatus.STOPPED
        with pytest.raises(Conflict, match="stopped"):
            Sandbox.connect(sandbox.sandbox_id)
        with pytest.raises(Conflict, match="stopped"):
            sandbox.ensure_healthy()
        sandbox.start()
        assert sandbox.files.read("kept.txt") == "kept"
        assert sandbox.info.status is SandboxStatus.RUNNING


def test_waiting_for_the_end() -> None:
    with Sandbox.create("base") as sandbox, ControlPlane() as control:
        with pytest.raises(PlatformFailure, match="is running") as caught:
            sandbox.wait(timeout=0.1)
        assert caught.value.code == "TIMEOUT"
        control.kill(sandbox.sandbox_id)
        sandbox.wait(timeout=10)
        assert sandbox.info.status is SandboxStatus.DELETED
        with pytest.raises(NotFound):
            sandbox.wait_until("running")
        with pytest.raises(InvalidRequest, match="no status"):
            sandbox.wait_until("happy")
        assert not sandbox.is_healthy()


def test_the_deadline() -> None:
    with Sandbox.create("base", timeout_seconds=100) as sandbox:
        left = sandbox.get_time_to_expiry()
        assert left is not None
        assert 90 <= left <= 100
        assert sandbox.is_expiring_soon()
        assert not sandbox.is_expiring_soon(30)
        expiry = sandbox.get_expiry_info()
        assert (expiry.has_timeout, expiry.is_expired, expiry.is_expiring_soon) == (True, False, True)
        sandbox.set_timeout(0)
        assert sandbox.get_time_to_expiry() is None
        assert not (sandbox.get_expiry_info()).has_timeout


def test_a_port_is_reached_at_its_preview_url() -> None:
    with Sandbox.create() as sandbox:
        sandbox.files.write("hello.txt", "from inside")
        sandbox.run_code_background(WEB, timeout=60)
        url = sandbox.get_preview_url(8000)
        deadline = time.monotonic() + 20
        with httpx2.Client(trust_env=False, timeout=10, verify=False) as client:
            while (answer := client.get(f"{url}hello.txt")).status_code != 200:
                assert time.monotonic() < deadline, answer.text
            assert answer.text == "from inside"
            agent = sandbox.get_preview_url() + "health"
            assert client.get(agent).status_code == 401
            headers = {"Authorization": "Bearer " + sandbox.get_token()}
            assert client.get(agent, headers=headers).status_code == 200
        for port in (0, 65536, -1):
            with pytest.raises(InvalidRequest, match="port"):
                sandbox.get_preview_url(port)


def test_what_the_agent_keeps_and_runs() -> None:
    with Sandbox.create() as sandbox:
        sandbox.ensure_healthy()
        assert "hits" in sandbox.cache.stats()
        assert (sandbox.cache.clear())["success"] is True
        sandbox.run_code("1")
        (session,) = sandbox.get_jupyter_sessions()
        assert session["execution_state"] == "idle"
        assert (sandbox.get_agent_metrics())["uptime_seconds"] > 0
        features = (sandbox.get_agent_info()).features
        assert (features["background"], features["streaming"], features["terminal"]) == (True, True, True)
