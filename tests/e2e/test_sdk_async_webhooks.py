"""Asynchronous executions from the client to a receiver that checks them, against a real server."""

import pytest
from tests.e2e.running_server import RunningServer
from tests.e2e.webhook_receiver import WebhookReceiver

from cove import AsyncSandbox
from cove.models.errors import AuthenticationFailed, InvalidRequest, NotFound
from cove.sdk import AsyncControlPlane, webhooks

pytestmark = pytest.mark.anyio  # async only

SECRET = "whsec"


async def test_a_signed_result_arrives_and_can_be_looked_up(allowing: RunningServer, receiver: WebhookReceiver) -> None:
    async with AsyncSandbox.create(base_url=allowing.url) as sandbox:
        accepted = await sandbox.run_code_async(
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
        async with AsyncControlPlane(base_url=allowing.url) as control:
            assert (await control.execution(accepted.execution_id)).exit_code == 0
            found = [info async for info in control.executions(sandbox_id=sandbox.sandbox_id)]
            assert [info.execution_id for info in found] == [accepted.execution_id]
            await control.redeliver(accepted.execution_id)
            receiver.wait(accepted.execution_id, count=2)
            with pytest.raises(NotFound):
                await control.execution("exec_00000000000000000000000000000000")


async def test_where_nothing_may_be_sent(allowing: RunningServer) -> None:
    async with AsyncSandbox.create(base_url=allowing.url) as sandbox:
        for url in ("http://169.254.169.254/", "ftp://example.org", ""):
            with pytest.raises(InvalidRequest, match="callback_url"):
                await sandbox.run_code_async("1", url)
