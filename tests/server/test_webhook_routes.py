"""The routes of asynchronous executions, and how requests get to them."""

from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import Plane, Running

from cove.core.tokens import AgentTokens
from cove.keys.sealing import Sealer
from cove.models.errors import CoveError
from cove.models.previews import PreviewTerms
from cove.models.sandboxes import SandboxStatus
from cove.server.gateway.heads import RequestHead, parse_request
from cove.server.gateway.refusals import Refuse
from cove.server.gateway.routing import ToAgent, ToControlPlane, decide
from cove.server.gateway.settings import GatewaySettings
from cove.server.settings import Settings

pytestmark = pytest.mark.anyio

JOB: dict[str, Any] = {"code": "print(1)", "callback_url": "http://127.0.0.1:9/hook"}


@pytest.fixture
async def plane(running: Running) -> Plane:
    return await running.start(webhook_allow=["127.0.0.1"])


async def sandbox_of(plane: Plane) -> tuple[str, dict[str, str]]:
    """Id and headers of a new sandbox."""
    made = (await plane.client.post("/v1/sandboxes", json={"template_name": "base"})).json()
    return made["id"], {"Authorization": f"Bearer {made['auth_token']}"}


async def test_an_execution_is_accepted_and_shown_to_its_tenant_only(plane: Plane) -> None:
    sandbox_id, token = await sandbox_of(plane)
    accepted = await plane.nobody.post(f"/sandboxes/{sandbox_id}/execute/async", json=JOB, headers=token)
    assert accepted.status_code == 200
    body = accepted.json()
    assert (body["status"], body["callback_url"]) == ("queued", JOB["callback_url"])
    execution_id = body["execution_id"]
    shown = (await plane.client.get(f"/v1/executions/{execution_id}")).json()
    assert (shown["execution_id"], shown["sandbox_id"], shown["timeout"]) == (execution_id, sandbox_id, 1800)
    assert shown["callback_url"] == JOB["callback_url"]
    listed = (await plane.client.get("/v1/executions", params={"sandbox_id": sandbox_id})).json()
    assert [one["execution_id"] for one in listed["data"]] == [execution_id]
    assert (await plane.stranger.get("/v1/executions")).json()["data"] == []
    for call in (
        plane.stranger.get(f"/v1/executions/{execution_id}"),
        plane.stranger.post(f"/v1/executions/{execution_id}/redeliver"),
    ):
        refused = await call
        assert (refused.status_code, refused.json()["code"]) == (404, "EXECUTION_NOT_FOUND")
    for path in ("/v1/executions", f"/v1/executions/{execution_id}"):
        assert (await plane.nobody.get(path)).status_code == 401


async def test_only_the_sandboxs_own_token_opens_the_route(plane: Plane) -> None:
    sandbox_id, token = await sandbox_of(plane)
    _, other = await sandbox_of(plane)
    path = f"/sandboxes/{sandbox_id}/execute/async"
    key = plane.client.headers["X-API-Key"]
    for headers, status, code in (
        ({}, 401, "UNAUTHORIZED"),
        ({"X-API-Key": key}, 401, "UNAUTHORIZED"),
        ({"Authorization": f"Bearer {key}"}, 401, "UNAUTHORIZED"),
        (other, 403, "FORBIDDEN"),
        ({"X-Sandbox-Id": sandbox_id, "X-Cove-Sandbox": sandbox_id}, 401, "UNAUTHORIZED"),
    ):
        refused = await plane.nobody.post(path, json=JOB, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    for near in ("/sandboxes/x/execute/async", f"{path}/", f"/sandboxes/{sandbox_id}/execute"):
        assert (await plane.nobody.post(near, json=JOB, headers=token)).status_code in (401, 404)
    await plane.client.delete(f"/v1/sandboxes/{sandbox_id}")
    gone = await plane.nobody.post(path, json=JOB, headers=token)
    assert (gone.status_code, gone.json()["code"]) == (404, "SANDBOX_NOT_FOUND")


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"code": None}, "code"),
    ({"timeout": 0}, "timeout"),
    ({"timeout": 86401}, "timeout"),
    ({"callback_url": None}, "callback_url"),
    ({"callback_url": ""}, "callback_url"),
    ({"callback_url": "http://127.0.0.1/" + "x" * 2048}, "callback_url"),
    ({"callback_url": "http://10.1.2.3/"}, "callback_url"),
    ({"callback_url": "http://user:hush@127.0.0.1/"}, "callback_url"),
    ({"callback_headers": {"X": "a\r\nY: b"}}, "callback_headers"),
    ({"callback_headers": {"X\r\nY": "b"}}, "callback_headers"),
    ({"callback_headers": {"": "b"}}, "callback_headers"),
    ({"callback_headers": {"X": "ü"}}, "callback_headers"),
    ({"callback_headers": {"X": "a\0"}}, "callback_headers"),
    ({"callback_headers": {"hOST": "b"}}, "callback_headers"),
    ({"callback_headers": {"Content-Length": "0"}}, "callback_headers"),
    ({"callback_headers": {"Transfer-Encoding": "chunked"}}, "callback_headers"),
    ({"callback_headers": {"Connection": "x"}}, "callback_headers"),
    ({"callback_headers": {"Proxy-Authorization": "x"}}, "callback_headers"),
    ({"callback_headers": {"x-hopx-signature": "sha256=forged"}}, "callback_headers"),
    ({"callback_headers": {"A": "1", "a": "2"}}, "callback_headers"),
    ({"callback_headers": {f"X-{number}": "" for number in range(51)}}, "callback_headers"),
    ({"callback_headers": {"X": "a" * 17_000}}, "callback_headers"),
    ({"callback_signature_secret": "s" * 513}, "callback_signature_secret"),
    ({"env": {"A=B": "1"}}, "env"),
)


async def test_bad_requests_are_answered_in_the_agents_form(plane: Plane) -> None:
    sandbox_id, token = await sandbox_of(plane)
    path = f"/sandboxes/{sandbox_id}/execute/async"
    for changes, field in BAD:
        body = {name: value for name, value in {**JOB, **changes}.items() if value is not None}
        refused = await plane.nobody.post(path, json=body, headers=token)
        told = refused.json()
        assert refused.status_code == 400, changes
        assert told["code"] in ("INVALID_REQUEST", "MISSING_PARAMETER")
        assert told["details"]["field"].startswith(field)
        # The synchronous Hopx client cannot show an error that is an object (contract 2.2).
        assert isinstance(told["error"], str)
        assert told["path"] == path
        assert "hush" not in refused.text
    assert (await plane.client.get("/v1/executions")).json()["data"] == []


async def test_bodies_that_are_not_json_and_too_large_ones(plane: Plane) -> None:
    sandbox_id, token = await sandbox_of(plane)
    headers = {**token, "Content-Type": "application/json"}
    for content, status, code in (
        (b"{", 400, "INVALID_JSON"),
        (b"[]", 400, "INVALID_JSON"),
        (b"x" * (1024 * 1024 + 1), 413, "REQUEST_TOO_LARGE"),
    ):
        refused = await plane.nobody.post(f"/sandboxes/{sandbox_id}/execute/async", content=content, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert isinstance(refused.json()["error"], str)


async def test_lists_are_checked(plane: Plane) -> None:
    for query in ({"limit": "0"}, {"limit": "1001"}, {"cursor": "x"}):
        assert (await plane.client.get("/v1/executions", params=query)).status_code == 400
    for name in ("exec_x", "../../etc", "x" * 300):
        assert (await plane.client.get(f"/v1/executions/{name}")).status_code == 404


class _Directory:
    """One sandbox runs."""

    def __init__(self, sandbox_id: str) -> None:
        self._sandbox_id = sandbox_id

    def socket_of(self, sandbox_id: str) -> Path | None:
        return Path("/nowhere") if sandbox_id == self._sandbox_id else None

    def state_of(self, sandbox_id: str) -> SandboxStatus | None:
        return SandboxStatus.RUNNING if sandbox_id == self._sandbox_id else None

    def previews_of(self, sandbox_id: str) -> PreviewTerms | None:
        return PreviewTerms() if sandbox_id == self._sandbox_id else None


async def test_every_address_of_the_agent_leads_to_the_control_plane(plane: Plane) -> None:
    sandbox_id, headers = await sandbox_of(plane)
    tokens: AgentTokens = plane.control.tokens

    def routed(method: str, target: str, host: str = "127.0.0.1") -> object:
        head = _head(method, target, host, headers["Authorization"])
        return decide(head, GatewaySettings(domain="cove.test"), tokens, _Directory(sandbox_id))

    wanted = f"/sandboxes/{sandbox_id}/execute/async".encode()
    for target, host in (
        ("/execute/async", "127.0.0.1"),
        ("/execute/async?x=/sandboxes/other", "127.0.0.1"),
        (f"/sandboxes/{sandbox_id}/execute/async", "127.0.0.1"),
        ("/execute/async", f"7777-{sandbox_id}.cove.test"),
    ):
        route = routed("POST", target, host)
        assert isinstance(route, ToControlPlane)
        assert route.target == wanted
    assert isinstance(routed("GET", "/execute/async"), ToAgent)
    assert isinstance(routed("POST", "/execute/async/"), ToAgent)
    assert isinstance(routed("POST", "/sandboxes/1763382095i648uu1o/execute/async"), Refuse)


def _head(method: str, target: str, host: str, authorization: str) -> RequestHead:
    lines = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\nContent-Length: 0"
    return parse_request(lines.encode())


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "http://x", ""])
def test_settings_that_cannot_be(entry: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="webhook_allow"):
        Settings(data_dir=tmp_path, webhook_allow=(entry,))


def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "executions.key"
    sealed = Sealer.load(path).seal("a", b"content")
    assert path.stat().st_mode & 0o777 == 0o600
    assert Sealer.load(path).open("a", sealed) == b"content"
    for name, changed in (("b", sealed), ("a", sealed[:-1]), ("a", b""), ("a", sealed[:-1] + bytes([sealed[-1] ^ 1]))):
        with pytest.raises(CoveError):
            Sealer.load(path).open(name, changed)
    path.write_bytes(b"short")
    with pytest.raises(CoveError, match="does not hold a key"):
        Sealer.load(path)
