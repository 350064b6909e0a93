"""The messages of each revision, byte for byte as a client would send them, on one connection."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from tests.e2e.running_server import RunningServer

from cove.mcp.greeting import greeting_for
from cove.mcp.identity import instructions_for
from cove.mcp.one_caller import OneCaller
from cove.mcp.server import build_server
from cove.mcp.toolsets import Toolset
from cove.sdk import AsyncControlPlane

pytestmark = pytest.mark.anyio

SECONDS = 30.0
META = "io.modelcontextprotocol/"
ENVELOPE: dict[str, Any] = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}}
REPLACED = ("ping", "logging/setLevel", "resources/subscribe", "no/such")


class Connection:
    """One client of the server."""

    def __init__(
        self,
        requests: MemoryObjectSendStream[SessionMessage | Exception],
        answers: MemoryObjectReceiveStream[SessionMessage],
    ) -> None:
        self._requests = requests
        self._answers = answers
        self._id = 0

    async def send(self, method: str, *, notify: bool = False, **params: Any) -> dict[str, Any]:
        """The answer, whole; empty for a notification."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not notify:
            self._id += 1
            message["id"] = self._id
        parsed = jsonrpc_message_adapter.validate_python(message, by_name=False)
        await self._requests.send(SessionMessage(parsed))
        if notify:
            return {}
        with anyio.fail_after(SECONDS):
            answer = (await self._answers.receive()).message
        fields = json.loads(answer.model_dump_json(by_alias=True, exclude_unset=True))
        assert fields["id"] == self._id
        return fields

    async def result(self, method: str, **params: Any) -> dict[str, Any]:
        """Of an answer that is none of an error."""
        answer = await self.send(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    async def code(self, method: str, **params: Any) -> int:
        """Of an error."""
        return (await self.send(method, **params))["error"]["code"]


@asynccontextmanager
async def connection(server: RunningServer, toolset: Toolset = Toolset.ALL) -> AsyncGenerator[Connection]:
    async with AsyncControlPlane(base_url=server.url) as control:
        mcp = build_server(OneCaller(control), toolset=toolset)
        requests, for_server = anyio.create_memory_object_stream[SessionMessage | Exception](1)
        from_server, answers = anyio.create_memory_object_stream[SessionMessage](1)
        async with requests, answers, anyio.create_task_group() as group:
            group.start_soon(mcp.run, for_server, from_server, mcp.create_initialization_options())
            yield Connection(requests, answers)
            group.cancel_scope.cancel()


@pytest.mark.parametrize("revision", HANDSHAKE_PROTOCOL_VERSIONS)
async def test_revisions_with_a_handshake(mcp_server: RunningServer, revision: str) -> None:
    client = {"name": "client", "version": "1"}
    async with connection(mcp_server) as peer:
        hello = await peer.result("initialize", protocolVersion=revision, capabilities={}, clientInfo=client)
        assert hello["protocolVersion"] == revision
        assert hello["instructions"] == instructions_for("all")
        await peer.send("notifications/initialized", notify=True)
        assert await peer.result("ping") == {}
        assert len((await peer.result("tools/list"))["tools"]) > 40
        ran = await peer.result("tools/call", name="execute_code_isolated", arguments={"code": "print(6 * 7)"})
        assert json.loads(ran["content"][0]["text"])["stdout"] == "42\n"
        assert len((await peer.result("prompts/list"))["prompts"]) == 4
        assert (await peer.result("prompts/get", name="quick_code_execution"))["messages"]
        assert (await peer.result("resources/read", uri="cove://guide"))["contents"]
        assert len((await peer.result("resources/templates/list"))["resourceTemplates"]) == 2
        reference = {"type": "ref/resource", "uri": "cove://templates/{name}"}
        found = await peer.result("completion/complete", ref=reference, argument={"name": "name", "value": "bas"})
        assert found["completion"]["values"] == ["base"]
        assert await peer.code("resources/read", uri="cove://nowhere/x") == -32002
        assert await peer.code("no/such") == -32601
        assert await peer.code("tools/call", name="no_such", arguments={}) == -32602
        assert await peer.code("prompts/get", name="quick_code_execution", arguments={"a": 1}) == -32602


async def test_an_unknown_revision_gets_the_newest_that_has_a_handshake(mcp_server: RunningServer) -> None:
    async with connection(mcp_server) as peer:
        hello = await peer.result(
            "initialize", protocolVersion="2099-01-01", capabilities={}, clientInfo={"name": "client", "version": "1"}
        )
        assert hello["protocolVersion"] == HANDSHAKE_PROTOCOL_VERSIONS[-1]


async def test_the_revision_without_a_handshake(mcp_server: RunningServer) -> None:
    async with connection(mcp_server) as peer:
        hello = await peer.result("server/discover", _meta=ENVELOPE)
        assert hello["supportedVersions"] == ["2026-07-28"]
        for method, field in {
            "tools/list": "tools",
            "prompts/list": "prompts",
            "resources/list": "resources",
            "resources/templates/list": "resourceTemplates",
        }.items():
            listed = await peer.result(method, _meta=ENVELOPE)
            assert listed[field]
            assert (listed["resultType"], listed["cacheScope"]) == ("complete", "private")
            assert listed["ttlMs"] > 0
            assert listed["_meta"][META + "serverInfo"]["name"] == "cove"
        assert await peer.code("resources/read", uri="cove://nowhere/x", _meta=ENVELOPE) == -32602
        for method in REPLACED:
            assert await peer.code(method, _meta=ENVELOPE) == -32601, method


async def test_what_a_request_without_a_handshake_must_say(mcp_server: RunningServer) -> None:
    async with connection(mcp_server) as peer:
        await peer.result("server/discover", _meta=ENVELOPE)
        unknown = {**ENVELOPE, META + "protocolVersion": "2099-01-01"}
        answer = await peer.send("tools/list", _meta=unknown)
        assert answer["error"]["code"] == -32022
        assert answer["error"]["data"]["supported"] == ["2026-07-28"]
        assert await peer.code("tools/list", _meta={META + "protocolVersion": "2026-07-28"}) == -32602


@pytest.mark.parametrize("toolset", list(Toolset))
async def test_each_set_of_tools_greets_with_its_own_instructions(mcp_server: RunningServer, toolset: Toolset) -> None:
    client = {"name": "client", "version": "1"}
    params: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).encode()
    greeting = greeting_for(line, toolset=toolset)
    assert greeting
    async with connection(mcp_server, toolset) as peer:
        assert await peer.send("initialize", **params) == json.loads(greeting)
