"""Asynchronous executions on a real server that is killed at the worst moments: run once, delivered for certain."""

from typing import Any

import httpx2
import pytest
from tests.e2e.conftest import Serve
from tests.e2e.running_server import RunningServer, until
from tests.e2e.webhook_receiver import WebhookReceiver

from cove.models.callbacks import sign

ALLOWED = ("--allow-webhook", "127.0.0.0/8")
LEAVE_A_MARK = "with open('/workspace/marks', 'a') as file: file.write('x')\n"


class Job:
    """A sandbox, and asynchronous executions in it, asked for over plain HTTP."""

    def __init__(self, server: RunningServer, receiver: WebhookReceiver) -> None:
        self.server = server
        self.receiver = receiver
        created = self._control("POST", "/v1/sandboxes", {"template_name": "base", "timeout_seconds": 600})
        self.sandbox_id: str = created["id"]
        self.headers = {"Authorization": f"Bearer {created['auth_token']}"}

    def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = httpx2.request(method, self.server.url + path, json=body, timeout=30, trust_env=False, verify=False)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def agent(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        address = f"{self.server.url}/sandboxes/{self.sandbox_id}{path}"
        return httpx2.post(address, json=body, headers=self.headers, timeout=30, trust_env=False, verify=False)

    def submit(self, code: str, **fields: Any) -> str:
        body = {"code": code, "callback_url": f"{self.receiver.url}/hook", **fields}
        answer = self.agent("/execute/async", body)
        assert answer.status_code == 200, answer.text
        return answer.json()["execution_id"]

    def marks(self) -> str:
        """What programs have written so far."""
        return self.agent("/commands/run", {"command": "cat /workspace/marks"}).json()["stdout"]

    def state(self, execution_id: str) -> dict[str, Any]:
        return self._control("GET", f"/v1/executions/{execution_id}")

    def reaches(self, execution_id: str, status: str) -> None:
        until(lambda: self.state(execution_id)["status"] == status, seconds=20, what=f"{execution_id} is {status}")

    def deliver_now(self, execution_id: str) -> None:
        """Do not wait for the next attempt."""
        self._control("POST", f"/v1/executions/{execution_id}/redeliver")

    def kill(self) -> None:
        self._control("DELETE", f"/v1/sandboxes/{self.sandbox_id}")

    def again(self, server: RunningServer) -> None:
        """Go on with the server that came after."""
        self.server = server


def test_signed_results_of_good_and_bad_programs(allowing: RunningServer, receiver: WebhookReceiver) -> None:
    job = Job(allowing, receiver)
    good = job.submit(
        "import os; print(os.environ['A'])",
        env={"A": "one"},
        callback_headers={"X-Job": "7"},
        callback_signature_secret="hush",
    )
    bad = job.submit("import sys; print('no', file=sys.stderr); sys.exit(3)")
    slow = job.submit("import time; print('begun', flush=True); time.sleep(600)", timeout=1)
    delivery = receiver.wait(good)
    body = delivery.body
    assert (body["status"], body["success"], body["stdout"], body["exit_code"]) == ("completed", True, "one\n", 0)
    headers = delivery.headers
    assert headers["x-hopx-signature"] == sign("hush", headers["x-hopx-timestamp"], delivery.raw)
    assert (headers["x-job"], headers["content-type"], delivery.path) == ("7", "application/json", "/hook")
    body = receiver.wait(bad).body
    assert (body["status"], body["success"], body["stderr"], body["exit_code"]) == ("failed", False, "no\n", 3)
    assert "x-hopx-signature" not in receiver.of(bad)[0].headers
    body = receiver.wait(slow).body
    assert (body["status"], body["stdout"]) == ("timeout", "begun\n")
    until(lambda: job.state(slow)["delivery"]["state"] == "delivered", seconds=10, what="it is noted")


@pytest.mark.timeout(150)
def test_a_server_that_is_killed_repeats_nothing_and_loses_nothing(serve: Serve, receiver: WebhookReceiver) -> None:
    server = serve(*ALLOWED)
    job = Job(server, receiver)
    receiver.status = 503
    undelivered = job.submit(LEAVE_A_MARK)
    receiver.wait(undelivered)
    running = job.submit(
        LEAVE_A_MARK + "import os, time\nwhile not os.path.exists('/workspace/go'): time.sleep(0.01)\nprint('done')"
    )
    job.reaches(running, "running")
    # Accepted a moment ago: some of them are queued, some are starting, some may have ended.
    fresh = [job.submit(f"{LEAVE_A_MARK}print({number})") for number in range(6)]
    server.kill()
    seen = len(receiver.of(undelivered))
    receiver.status = 204
    job.again(serve(*ALLOWED))
    assert [receiver.wait(one).body["stdout"] for one in fresh] == [f"{number}\n" for number in range(6)]
    job.deliver_now(undelivered)
    receiver.wait(undelivered, count=seen + 1)
    until(lambda: job.state(undelivered)["delivery"]["state"] == "delivered", seconds=10, what="it is delivered")
    assert len({one.headers["x-hopx-delivery"] for one in receiver.of(undelivered)}) == 1
    assert receiver.of(running) == []
    job.agent("/commands/run", {"command": "touch /workspace/go"})
    assert receiver.wait(running).body["stdout"] == "done\n"
    assert job.marks() == "x" * 8


def test_the_sandbox_ends_first(allowing: RunningServer, receiver: WebhookReceiver) -> None:
    job = Job(allowing, receiver)
    execution_id = job.submit("import time; time.sleep(600)")
    job.reaches(execution_id, "running")
    job.kill()
    body = receiver.wait(execution_id).body
    assert (body["status"], body["success"], body["exit_code"]) == ("failed", False, -1)
    assert "killed" in body["error"]


@pytest.mark.timeout(150)
def test_a_server_that_is_stopped_loses_nothing(serve: Serve, receiver: WebhookReceiver) -> None:
    server = serve(*ALLOWED)
    job = Job(server, receiver)
    receiver.status = 500
    undelivered = job.submit("print('kept')")
    receiver.wait(undelivered)
    running = job.submit("import time; time.sleep(600)")
    job.reaches(running, "running")
    server.stop()
    seen = len(receiver.of(undelivered))
    receiver.status = 200
    job.again(serve(*ALLOWED))
    job.deliver_now(undelivered)
    assert receiver.wait(undelivered, count=seen + 1).body["stdout"] == "kept\n"
    # Without --keep-sandboxes they end with the server, and their programs with them.
    assert receiver.wait(running).body["status"] == "failed"


def test_nothing_goes_where_it_may_not(server: RunningServer, receiver: WebhookReceiver) -> None:
    job = Job(server, receiver)
    for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost"), "http://169.254.169.254/latest/"):
        refused = job.agent("/execute/async", {"code": "print(1)", "callback_url": url})
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_REQUEST")
        assert "COVE_WEBHOOK_ALLOW" in refused.json()["error"]
    assert receiver.deliveries == []
    job.kill()
