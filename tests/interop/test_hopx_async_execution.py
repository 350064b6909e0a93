"""`run_code_async` of the unmodified client, and the request of its predecessors, with a real receiver."""

from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer
from tests.e2e.webhook_receiver import WebhookReceiver
from tests.interop import hopx

from cove.models.callbacks import sign

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(allowing: RunningServer) -> RunningServer:
    return allowing


@pytest.fixture(scope="module")
def there(server: RunningServer) -> dict[str, Any]:
    return {"base_url": server.url, "api_key": hopx.KEY}


def check_signature(receiver: WebhookReceiver, execution_id: str, secret: str) -> None:
    delivery = receiver.wait(execution_id)
    signed = sign(secret, delivery.headers["x-hopx-timestamp"], delivery.raw)
    assert delivery.headers["x-hopx-signature"] == signed


def test_sync(sandbox: Any, receiver: WebhookReceiver) -> None:
    answer = sandbox.run_code_async(
        "import os; print(os.environ['A'], os.getcwd())",
        f"{receiver.url}/cb?job=1",
        timeout=3600,
        env={"A": "one"},
        working_dir="/tmp",
        callback_headers={"Authorization": "Bearer mine", "Content-Type": "application/json"},
        callback_signature_secret="hush",
    )
    assert answer["status"] == "queued"
    assert answer["callback_url"] == f"{receiver.url}/cb?job=1"
    delivery = receiver.wait(answer["execution_id"])
    assert (delivery.path, delivery.headers["authorization"]) == ("/cb?job=1", "Bearer mine")
    assert (delivery.body["status"], delivery.body["stdout"]) == ("completed", "one /tmp\n")
    check_signature(receiver, answer["execution_id"], "hush")


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", "print(6 * 7)"), ("javascript", "console.log(6 * 7)"), ("bash", "echo $((6 * 7))")],
)
def test_languages(sandbox: Any, receiver: WebhookReceiver, language: str, code: str) -> None:
    answer = sandbox.run_code_async(code, receiver.url, language=language)
    body = receiver.wait(answer["execution_id"]).body
    assert (body["stdout"], body["exit_code"], body["language"]) == ("42\n", 0, language)


async def test_async(async_sandbox: Any, receiver: WebhookReceiver) -> None:
    answer = await async_sandbox.run_code_async("1 / 0", receiver.url, callback_signature_secret="s")
    assert answer["status"] == "queued"
    body = receiver.wait(answer["execution_id"]).body
    assert (body["status"], body["success"], body["exit_code"]) == ("failed", False, 1)
    assert "ZeroDivisionError" in body["stderr"]
    check_signature(receiver, answer["execution_id"], "s")


async def test_a_callback_that_is_refused_async(async_sandbox: Any) -> None:
    # This client shows the HTTP library's text instead of the server's.
    with pytest.raises(hopx.errors.AgentError, match="400"):
        await async_sandbox.run_code_async("print(1)", "http://10.0.0.1/")


def test_as_older_clients_ask(sandbox: Any, receiver: WebhookReceiver) -> None:
    answer = httpx2.post(
        f"{sandbox.get_info().public_host}/execute/async",
        json={
            "code": "import os; print(os.getcwd())",
            "language": "python3",
            "timeout": 3600,
            "working_dir": "/tmp",
            "callback_url": receiver.url,
        },
        headers={"Authorization": f"Bearer {sandbox.get_token()}"},
        timeout=20,
        trust_env=False,
        verify=False,
    )
    assert answer.status_code == 200
    assert receiver.wait(answer.json()["execution_id"]).body["stdout"] == "/tmp\n"


def test_a_callback_that_is_refused(sandbox: Any) -> None:
    with pytest.raises(hopx.errors.AgentError) as caught:
        sandbox.run_code_async("print(1)", "http://169.254.169.254/latest/meta-data/")
    assert "COVE_WEBHOOK_ALLOW" in str(caught.value)
    assert caught.value.code == "INVALID_REQUEST"
