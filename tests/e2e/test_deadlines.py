"""A sandbox is gone, with all that it held, at most two seconds after its deadline."""

import time

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, until

from cove import Sandbox
from cove.models.errors import NotFound

LATE_SECONDS = 2.0


def gone_in_time(server: RunningServer, sandbox: Sandbox, *, deadline: float) -> None:
    traces = server.traces(sandbox.sandbox_id)
    seconds = deadline + LATE_SECONDS - time.time()
    until(lambda: not traces.present(), seconds=seconds, what=f"{sandbox.sandbox_id} has left nothing")
    assert time.time() >= deadline - 0.05, "it was gone before its time"


def test_gone_after_its_timeout(server: RunningServer, api: httpx2.Client) -> None:
    sandbox = Sandbox.create(base_url=server.url, timeout_seconds=3)
    expires = sandbox.info.expires_at
    assert expires
    # Processes that fight back: a session of its own, signals ignored, a child that forks on.
    sandbox.commands.run("trap '' TERM HUP INT; (setsid nohup sh -c 'while :; do sleep 1; done' >/dev/null 2>&1 &)")
    gone_in_time(server, sandbox, deadline=expires.timestamp())
    answer = api.get(f"/v1/sandboxes/{sandbox.sandbox_id}")
    assert answer.status_code == 404
    assert answer.json()["details"]["end_reason"] == "expired"
    assert "expired" in answer.json()["message"]
    assert sandbox.sandbox_id not in api.get("/v1/sandboxes").text
    with pytest.raises(NotFound):
        sandbox.run_code("print(1)")
    sandbox.close()


def test_gone_in_the_middle_of_a_program(server: RunningServer) -> None:
    sandbox = Sandbox.create(base_url=server.url, timeout_seconds=2)
    expires = sandbox.info.expires_at
    assert expires
    with pytest.raises(Exception) as raised:
        sandbox.run_code("while True: pass", timeout=60)
    assert time.time() < expires.timestamp() + LATE_SECONDS
    assert getattr(raised.value, "code", "") in {"AGENT_UNREACHABLE", "NETWORK_ERROR", "SANDBOX_NOT_FOUND"}
    until(
        lambda: server.record(sandbox.sandbox_id) is None,
        seconds=expires.timestamp() + LATE_SECONDS - time.time(),
        what="the host has forgotten it",
    )
    sandbox.close()


def test_a_deadline_can_be_moved_both_ways(server: RunningServer) -> None:
    with Sandbox.create("base", base_url=server.url, timeout_seconds=600) as sandbox:
        later = sandbox.set_timeout(700).expires_at
        assert later
        assert 690 < later.timestamp() - time.time() <= 700
        assert sandbox.set_timeout(0).expires_at is None
        record = server.record(sandbox.sandbox_id)
        assert record
        assert record["deadline"] is None
        soon = sandbox.set_timeout(1).expires_at
        assert soon
        gone_in_time(server, sandbox, deadline=soon.timestamp())


def test_a_paused_sandbox_ends_in_time_too(server: RunningServer) -> None:
    with Sandbox.create("base", base_url=server.url, timeout_seconds=600) as sandbox:
        sandbox.pause()
        soon = sandbox.set_timeout(1).expires_at
        assert soon
        gone_in_time(server, sandbox, deadline=soon.timestamp())


def test_killing_frees_everything_at_once(server: RunningServer) -> None:
    with Sandbox.create(base_url=server.url) as sandbox:
        sandbox.commands.run("(setsid sleep 1000 >/dev/null 2>&1 &)")
        sandbox.files.write("/workspace/large", "x" * 1_000_000)
        traces = server.traces(sandbox.sandbox_id)
        sandbox.kill()
        assert traces.present() == []
