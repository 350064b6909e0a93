"""Stop and start: what stays, what goes, and what SIGKILL of the programs in between changes: nothing."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from tests.e2e.conftest import Serve
from tests.e2e.running_server import RunningServer, lives, until

pytestmark = pytest.mark.usefixtures("as_root")

AGAIN_SECONDS = 20.0
SOON_SECONDS = 1.0


class Client(NamedTuple):
    """One sandbox over plain HTTP."""

    server: RunningServer
    sandbox_id: str
    token: str

    @classmethod
    def create(cls, server: RunningServer, **fields: Any) -> "Client":
        body = {"template_name": "code-interpreter", "timeout_seconds": 600, **fields}
        answer = httpx2.post(f"{server.url}/v1/sandboxes", json=body, timeout=30, verify=False)
        assert answer.status_code == 201, answer.text
        return cls(server, answer.json()["id"], answer.json()["auth_token"])

    def at(self, server: RunningServer) -> "Client":
        return self._replace(server=server)

    @property
    def address(self) -> str:
        return f"{self.server.url}/v1/sandboxes/{self.sandbox_id}"

    def act(self, action: str) -> httpx2.Response:
        return httpx2.post(f"{self.address}/{action}", timeout=60, verify=False)

    def becomes(self, action: str, status: str) -> None:
        answer = self.act(action)
        assert (answer.status_code, answer.json().get("status")) == (200, status), answer.text
        assert self.info()["status"] == status

    def info(self) -> dict[str, Any]:
        return httpx2.get(self.address, timeout=30, verify=False).json()

    def ask(self, path: str, body: dict[str, Any], *, method: str = "POST") -> httpx2.Response:
        address = f"{self.server.url}/sandboxes/{self.sandbox_id}{path}"
        return httpx2.request(
            method, address, json=body, headers={"Authorization": f"Bearer {self.token}"}, timeout=30, verify=False
        )

    def run(self, code: str, language: str = "bash") -> str:
        answer = self.ask("/execute", {"code": code, "language": language})
        assert answer.status_code == 200, answer.text
        return answer.json()["stdout"].strip()

    def is_gone(self) -> bool:
        return httpx2.get(self.address, timeout=30, verify=False).status_code == 404

    def kill(self) -> None:
        assert httpx2.delete(self.address, timeout=30, verify=False).status_code == 200


def disks_of(server: RunningServer) -> list[Path]:
    """Images that sandboxes have, not those that are kept ready for new ones: known by their records."""
    records = (server.record(path.stem) for path in (server.data_dir / "run/sandboxes").glob("*.json"))
    names = [record["driver_state"]["kit"] for record in records if record and not record["pooled"]]
    return [path for name in names for path in (server.data_dir / "run").glob(f"**/disks/{name}.img")]


def kill_both(server: RunningServer) -> None:
    daemon = server.host_daemon()
    assert daemon
    server.kill()
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: not lives(daemon), seconds=5, what="the host daemon is dead")


def test_a_sandbox_that_is_stopped_keeps_its_files_and_variables_and_nothing_else(server: RunningServer) -> None:
    sandbox = Client.create(server, env_vars={"GIVEN": "at birth"})
    assert (
        sandbox.ask("/env", {"env_vars": {"LATER": "by PATCH", "ODD": 'a"b\n\u00e4'}}, method="PATCH").status_code
        == 200
    )
    sandbox.run(
        "mkdir -p /workspace/d; echo one > /workspace/d/file; echo two > /tmp/file; sleep 1000 >/dev/null 2>&1 &"
    )
    sandbox.run("number = 41", "python")
    traces = server.traces(sandbox.sandbox_id)
    before = sandbox.info()
    sandbox.becomes("stop", "stopped")
    sandbox.becomes("stop", "stopped")
    assert [line for line in traces.present() if not line.startswith("record")] == []
    assert len(disks_of(server)) == 1
    assert sandbox.info() | {"status": "", "request_id": ""} == before | {"status": "", "request_id": ""}

    sandbox.becomes("start", "running")
    sandbox.becomes("start", "running")
    assert sandbox.run("cat /workspace/d/file /tmp/file; pgrep -c sleep") == "one\ntwo\n0"
    assert sandbox.run('echo "$GIVEN, $LATER, $ODD"') == 'at birth, by PATCH, a"b\n\u00e4'
    assert "NameError" in sandbox.ask("/execute", {"code": "number", "language": "python"}).json()["stderr"]
    assert sandbox.run("import os; print(os.environ['GIVEN'])", "python") == "at birth"
    record = server.record(sandbox.sandbox_id)
    assert record
    assert record["env_vars"] == {}  # kept on the host only while there is no sandbox to keep them

    again = server.traces(sandbox.sandbox_id)
    sandbox.kill()
    assert again.present() == []
    assert disks_of(server) == []


def test_states_that_do_not_fit_are_refused_with_the_way_out(server: RunningServer) -> None:
    sandbox = Client.create(server, template_name="base")
    sandbox.becomes("start", "running")
    sandbox.becomes("pause", "paused")
    refused = sandbox.act("start")
    assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
    assert "/resume" in refused.json()["remedy"]
    sandbox.becomes("stop", "stopped")
    for action in ("pause", "resume"):
        refused = sandbox.act(action)
        assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
        assert "/start" in refused.json()["remedy"]
        assert sandbox.info()["status"] == "stopped"
    sandbox.becomes("start", "running")
    assert sandbox.run("echo well") == "well"
    sandbox.becomes("stop", "stopped")
    sandbox.kill()
    for action in ("stop", "start"):
        assert sandbox.act(action).status_code == 404


@pytest.mark.parametrize(("action", "back"), [("pause", "resume"), ("stop", "start")])
def test_calls_to_a_sandbox_that_does_not_run_are_answered_at_once(
    server: RunningServer, action: str, back: str
) -> None:
    sandbox = Client.create(server, template_name="base")
    sandbox.act(action)
    for path, method in (("/execute", "POST"), ("/files/list", "GET"), ("/health", "GET"), ("/terminal", "GET")):
        started = time.monotonic()
        answer = sandbox.ask(path, {"code": "1"}, method=method)
        assert time.monotonic() - started < SOON_SECONDS
        assert (answer.status_code, answer.json()["code"]) == (409, "INVALID_STATE")
        assert f"{back} it first" in answer.json()["message"]
    sandbox.becomes(back, "running")
    assert sandbox.run("echo back") == "back"
    sandbox.kill()


def test_a_request_in_progress_is_told_of_the_stop(server: RunningServer) -> None:
    sandbox = Client.create(server, template_name="base")
    address = f"{server.url}/sandboxes/{sandbox.sandbox_id}/execute"
    headers = {"Authorization": f"Bearer {sandbox.token}"}
    body = {"code": "touch /workspace/begun; sleep 100", "language": "bash"}
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(httpx2.post, address, json=body, headers=headers, timeout=30)
        until(lambda: sandbox.run("ls /workspace") == "begun", seconds=10, what="the program runs")
        sandbox.becomes("stop", "stopped")
        answer = waiting.result(10)
    assert (answer.status_code, answer.json()["code"]) == (409, "INVALID_STATE")
    sandbox.kill()


def test_a_stopped_sandbox_still_expires(server: RunningServer) -> None:
    sandbox = Client.create(server, template_name="base")
    sandbox.becomes("stop", "stopped")
    set_to = httpx2.put(f"{sandbox.address}/timeout", json={"timeout_seconds": 1}, verify=False)
    assert set_to.status_code == 200
    until(sandbox.is_gone, seconds=3.5, what="it has expired")
    assert httpx2.get(sandbox.address, verify=False).json()["details"]["end_reason"] == "expired"
    until(lambda: not server.record(sandbox.sandbox_id), seconds=2, what="its disk is gone")
    assert disks_of(server) == []


def test_stopped_sandboxes_survive_the_death_of_server_and_host_daemon(serve: Serve) -> None:
    server = serve()
    stopped, paused = Client.create(server), Client.create(server, template_name="base")
    stopped.run("echo kept > /workspace/file")
    stopped.becomes("stop", "stopped")
    paused.becomes("pause", "paused")
    expires = stopped.info()["expires_at"]
    kill_both(server)
    assert len(disks_of(server)) == 2

    again = serve()
    stopped, paused = stopped.at(again), paused.at(again)
    assert (stopped.info()["status"], stopped.info()["expires_at"]) == ("stopped", expires)
    assert paused.info()["status"] == "paused"
    stopped.becomes("start", "running")
    assert stopped.run("cat /workspace/file; id -u; echo more >> /workspace/file") == "kept\n1000"
    stopped.becomes("stop", "stopped")
    for one in (stopped, paused):
        one.kill()
    assert disks_of(again) == []


def test_a_stopped_sandbox_survives_an_orderly_restart_of_the_server(serve: Serve) -> None:
    server = serve()
    sandbox, running = Client.create(server, template_name="base"), Client.create(server, template_name="base")
    sandbox.run("echo kept > /workspace/file")
    sandbox.becomes("stop", "stopped")
    server.stop()
    assert len(list((server.data_dir / "run/sandboxes").iterdir())) == 1
    again = serve()
    sandbox = sandbox.at(again)
    assert running.at(again).act("start").status_code == 404
    sandbox.becomes("start", "running")
    assert sandbox.run("cat /workspace/file") == "kept"
    sandbox.kill()


def test_a_deadline_of_a_stopped_sandbox_that_passed_while_nothing_ran(serve: Serve) -> None:
    server = serve()
    sandbox = Client.create(server, template_name="base", timeout_seconds=600)
    sandbox.becomes("stop", "stopped")
    due = time.time() + 1
    httpx2.put(f"{sandbox.address}/timeout", json={"timeout_seconds": 1}, verify=False)
    kill_both(server)
    until(lambda: time.time() > due, seconds=3, what="its time has come")
    again = serve()
    gone = httpx2.get(sandbox.at(again).address, verify=False)
    assert (gone.status_code, gone.json()["details"]["end_reason"]) == (404, "expired")
    until(lambda: not again.record(sandbox.sandbox_id), seconds=AGAIN_SECONDS, what="its record is gone")
    assert disks_of(again) == []


def test_a_stopped_sandbox_that_lost_its_disk_has_crashed(server: RunningServer) -> None:
    first, second = (Client.create(server, template_name="base") for _ in range(2))
    for one in (first, second):
        one.becomes("stop", "stopped")
    record = server.record(first.sandbox_id)
    assert record
    (image,) = (server.data_dir / "run").glob(f"**/disks/{record['driver_state']['kit']}.img")
    image.unlink()
    refused = first.act("start")
    assert (refused.status_code, refused.json()["code"]) == (404, "SANDBOX_NOT_FOUND")
    assert httpx2.get(first.address, verify=False).json()["details"]["end_reason"] == "crashed"
    until(lambda: not server.record(first.sandbox_id), seconds=5, what="its record is gone")
    second.becomes("start", "running")
    second.kill()


def test_a_sandbox_that_dies_is_noticed_at_once(serve: Serve) -> None:
    server = serve(COVE_RECONCILE_SECONDS="60")
    for _ in range(3):
        sandbox = Client.create(server, template_name="base")
        record = server.record(sandbox.sandbox_id)
        assert record
        os.kill(record["pid"], signal.SIGKILL)
        until(sandbox.is_gone, seconds=3.0, what="the crash is noticed")
        assert httpx2.get(sandbox.address, verify=False).json()["details"]["end_reason"] == "crashed"


def test_a_death_is_noticed_at_once_also_by_the_next_host_daemon(serve: Serve) -> None:
    server = serve()
    sandbox = Client.create(server, template_name="base")
    record, daemon = server.record(sandbox.sandbox_id), server.host_daemon()
    assert record
    assert daemon
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: server.host_daemon() not in {None, daemon}, seconds=AGAIN_SECONDS, what="another daemon runs")
    until(lambda: httpx2.get(sandbox.address, verify=False).status_code == 200, seconds=5, what="the server answers")
    assert sandbox.run("echo adopted") == "adopted"
    os.kill(record["pid"], signal.SIGKILL)
    until(sandbox.is_gone, seconds=5.0, what="the crash is noticed")


def test_a_host_daemon_that_dies_during_stops_and_starts_loses_no_file(serve: Serve) -> None:
    server = serve()
    sandbox = Client.create(server, template_name="base")
    sandbox.run("for i in $(seq 200); do echo $i > /workspace/$i; done")
    for milliseconds in (0, 15, 40):
        daemon = server.host_daemon()
        assert daemon
        with ThreadPoolExecutor(1) as threads:
            acting = threads.submit(lambda: [sandbox.act(action).status_code for action in ("stop", "start", "stop")])
            time.sleep(milliseconds / 1000)  # the moment is the point of this test
            os.kill(daemon.pid, signal.SIGKILL)
            assert set(acting.result(AGAIN_SECONDS)) <= {200, 409, 502, 503}
        until(lambda: server.host_daemon() not in {None, daemon}, seconds=AGAIN_SECONDS, what="another daemon runs")  # noqa: B023
        until(lambda: sandbox.act("stop").status_code == 200, seconds=AGAIN_SECONDS, what="it can be stopped")
        until(lambda: sandbox.act("start").status_code == 200, seconds=AGAIN_SECONDS, what="it can be started")
        assert sandbox.run("cat /workspace/* | sort -n | uniq | wc -l") == "200"
    sandbox.kill()
    assert disks_of(server) == []


def test_listing_shows_stopped_sandboxes_by_their_status(server: RunningServer) -> None:
    sandboxes = {status: Client.create(server, template_name="base") for status in ("running", "paused", "stopped")}
    sandboxes["paused"].act("pause")
    sandboxes["stopped"].act("stop")
    for status, sandbox in sandboxes.items():
        listed = httpx2.get(f"{server.url}/v1/sandboxes", params={"status": status}, verify=False).json()
        assert [one["id"] for one in listed["data"]] == [sandbox.sandbox_id]
    every = httpx2.get(f"{server.url}/v1/sandboxes", verify=False).json()["data"]
    assert {one["status"] for one in every} == set(sandboxes)
    for sandbox in sandboxes.values():
        sandbox.kill()
