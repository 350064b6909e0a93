# Generated from tests/e2e/test_sdk_async_webhooks.py by tools/generate_sync_sdk.py. Do not edit.

"""Asynchronous executions from the client to a receiver that checks them, against a real server."""

import pytest
from tests.e2e.running_server import RunningServer
from tests.e2e.webhook_receiver import WebhookReceiver

from cove import Sandbox
from cove.models.errors import AuthenticationFailed, InvalidRequest, NotFound
from cove.sdk import ControlPlane, webhooks

SECRET = "whsec"


def test_a_signed_result_arrives_and_can_be_looked_up(allowing: RunningServer, receiver: WebhookReceiver) -> None:
    with Sandbox.create(base_url=allowing.url) as sandbox:
        accepted = sandbox.run_code_async(
            "import os\nprint(os.environ['A'])",
            f"{receiver.url}/hook",
            env={"A": "b"},
            callback_headers={"X-Mine": "1"},
            callback_signature_secret=SECRET,
        )
        assert accepted.status == "queued"
        delivered = receiver.wait(accepted.execution_id)
        delivery = webhooks.verify(delivered.raw, delivered.headers, SECRET)
        assert (delivery.execution_id, delivery.status, delivery.stdout) == (accepted.execution_id, "completed", "b\n")
        assert delivered.headers["x-mine"] == "1"
        with pytest.raises(AuthenticationFailed):
            webhooks.verify(delivered.raw, delivered.headers, "other")
        with ControlPlane(base_url=allowing.url) as control:
            assert (control.execution(accepted.execution_id)).exit_code == 0
            found = list(control.executions(sandbox_id=sandbox.sandbox_id))
            assert [info.execution_id for info in found] == [accepted.execution_id]
            control.redeliver(accepted.execution_id)
            receiver.wait(accepted.execution_id, count=2)
            with pytest.raises(NotFound):
                control.execution("exec_00000000000000000000000000000000")


def test_where_nothing_may_be_sent(allowing: RunningServer) -> None:
    with Sandbox.create(base_url=allowing.url) as sandbox:
        for url in ("http://169.254.169.254/", "ftp://example.org", ""):
            with pytest.raises(InvalidRequest, match="callback_url"):
                sandbox.run_code_async("1", url)
