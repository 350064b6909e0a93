"""The JSON-RPC route of a real server: what it does, refuses, and ends."""

import json
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent
from tests.compat.microsandbox.conftest import MakeKey
from tests.e2e.running_server import RunningServer, until

from cove.sdk import ControlPlane

PATH = "/api/v1/rpc"


def _body(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": "1"}


def _call(http: httpx2.Client, method: str, **params: Any) -> dict[str, Any]:
    answer = http.post(PATH, json=_body(method, **params))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
    return found


def _run(http: httpx2.Client, sandbox: str, code: str, **more: Any) -> dict[str, Any]:
    return _call(http, "sandbox.repl.run", sandbox=sandbox, language="python", code=code, **more)["result"]


@pytest.fixture(scope="module", autouse=True)
def _ended(keyed: RunningServer, operator_key: str) -> Iterator[None]:
    yield
    with ControlPlane(base_url=keyed.url, api_key=operator_key) as control:
        for info in list(control.in_namespace("*").sandboxes()):
            if info.name:
                control.in_namespace(str(info.namespace)).kill(info.id)


@pytest.fixture
def box(http: httpx2.Client) -> str:
    """A started sandbox."""
    name = f"box-{uuid.uuid4().hex}"
    _call(http, "sandbox.start", sandbox=name)
    return name


def test_the_older_and_the_newer_dialect_are_the_same_sandbox(http: httpx2.Client, box: str) -> None:
    _run(http, box, "x = 1", namespace="default")
    assert _run(http, box, "print(x)", namespace=None, beyond=1)["output"] == [{"stream": "stdout", "text": "1"}]


def test_a_failed_run_says_why_and_is_no_http_error(http: httpx2.Client, box: str) -> None:
    missing = _call(http, "sandbox.repl.run", sandbox="nobody", language="python", code="1")
    assert "There is no sandbox 'nobody'" in missing["error"]["message"]
    other = _call(http, "sandbox.repl.run", sandbox=box, language="cobol", code="1")
    assert "nodejs" in other["error"]["message"]
    assert other["error"]["code"] == -32602
    never = _call(http, "sandbox.command.run", sandbox=box, command="ls", timeout=0)
    assert "timeout" in never["error"]["message"]
    body = json.dumps(_body("sandbox.repl.run", sandbox=box, language="python", code="'\ud800'"))
    surrogate = http.post(PATH, content=body, headers={"Content-Type": "application/json"}).json()
    assert "surrogates" in surrogate["error"]["message"]
    assert _run(http, box, "print(2)")["status"] == "success"


def test_what_cannot_be_read(http: httpx2.Client) -> None:
    assert http.get(PATH).status_code == 405
    assert http.post(PATH + "/", json={}).status_code == 404
    assert http.post(PATH, content="{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert http.post(PATH, content="{", headers={"Content-Type": "application/json"}).status_code == 400
    assert http.post(PATH, json=[]).status_code == 422
    assert http.post(PATH, json=_body("sandbox.unknown")).status_code == 404


def test_large_code_is_run_or_refused_in_words(http: httpx2.Client, box: str) -> None:
    three = "x = '" + "a" * 3_000_000 + "'\nprint(len(x))"
    assert _run(http, box, three)["output"] == [{"stream": "stdout", "text": "3000000"}]
    five = _call(http, "sandbox.repl.run", sandbox=box, language="python", code="#" * 5_000_000)
    assert "4194304" in five["error"]["message"]
    ten = http.post(PATH, json=_body("sandbox.repl.run", sandbox=box, language="python", code="#" * 10_000_000))
    assert ten.status_code == 413


def test_many_starts_of_one_name_are_one_sandbox(http: httpx2.Client, keyed: RunningServer, operator_key: str) -> None:
    def start(_: int) -> dict[str, Any]:
        return _call(http, "sandbox.start", sandbox="crowd")

    with ThreadPoolExecutor(12) as threads:
        started = list(threads.map(start, range(12)))
    assert all("started successfully" in one["result"] for one in started)
    with ControlPlane(base_url=keyed.url, api_key=operator_key) as control:
        assert len([info for info in control.sandboxes() if info.name == "crowd"]) == 1


def test_a_sandbox_that_was_paused_goes_on(
    http: httpx2.Client, keyed: RunningServer, operator_key: str, box: str
) -> None:
    with ControlPlane(base_url=keyed.url, api_key=operator_key) as control:
        [info] = [info for info in control.sandboxes() if info.name == box]
        _run(http, box, "x = 1")
        control.pause(info.id)
        assert _call(http, "sandbox.metrics.get", sandbox=box)["result"]["sandboxes"][0]["running"] is False
        assert _run(http, box, "print(x)")["output"][0]["text"] == "1"
        control.kill(info.id)
    _call(http, "sandbox.start", sandbox=box)
    assert _run(http, box, "print('x' in globals())")["output"][0]["text"] == "False"


def test_a_client_that_leaves_ends_its_program(
    http: httpx2.Client, keyed: RunningServer, operator_key: str, box: str
) -> None:
    # Shown by a mark that only a program that goes on could make, and by the interpreter being free again.
    code = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\npathlib.Path('survived').touch()"
    address = urlsplit(keyed.url)
    content = json.dumps(_body("sandbox.repl.run", sandbox=box, language="python", code=code)).encode()
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as client:
        client.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {operator_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        until(
            lambda: _call(http, "sandbox.command.run", sandbox=box, command="test", args=["-e", "begun"])["result"][
                "success"
            ],
            seconds=20,
            what="the program has begun",
        )
    found = _run(http, box, "print(pathlib.Path('survived').exists())", timeout=20)
    assert found["output"][-1]["text"] == "False"


def test_a_key_that_may_only_look(http: httpx2.Client, keyed: RunningServer, make_key: MakeKey, box: str) -> None:
    looking = {"Authorization": f"Bearer {make_key('--namespace', 'default', '--scope', 'read')}"}
    with httpx2.Client(base_url=keyed.url, headers=looking, timeout=60, trust_env=False, verify=False) as client:
        [figures] = _call(client, "sandbox.metrics.get", sandbox=box)["result"]["sandboxes"]
        assert (figures["running"], figures["cpu_usage"]) == (True, None)
        for method in ("sandbox.start", "sandbox.stop", "sandbox.repl.run", "sandbox.command.run"):
            params = {"sandbox": box, "code": "1", "language": "python", "command": "ls"}
            refused = client.post(
                PATH, json=_body(method, **(params | ({"sandbox": "new"} if "start" in method else {})))
            )
            assert (refused.status_code, refused.json()["code"]) == (403, 3001), method
            assert "exec" in refused.json()["error"]


def test_volumes_are_copies_of_what_the_operator_allowed(
    http: httpx2.Client, allowed_volume: Path, tmp_path: Path
) -> None:
    project = allowed_volume / "project"
    (project / "below").mkdir(parents=True)
    (project / "below" / "data.txt").write_text("seen")
    (project / "out").symlink_to("/etc/passwd")
    (tmp_path / "secret").write_text("hush")
    (allowed_volume / "way-out").symlink_to(tmp_path)
    volumes = [f"{project}:/workspace/project", f"{project}/below:/workspace/again"]
    said = _call(http, "sandbox.start", sandbox="copied", config={"volumes": volumes})["result"]
    assert "copied to /workspace/project" in said
    listed = _run(
        http,
        "copied",
        "import os; print(open('project/below/data.txt').read(), os.listdir('project'), os.listdir('again'))",
    )
    assert listed["output"][0]["text"] == "seen ['below'] ['data.txt']"
    _run(http, "copied", "open('project/below/data.txt', 'w').write('changed')")
    assert (project / "below" / "data.txt").read_text() == "seen"
    for volume in (str(tmp_path), f"{allowed_volume}/../", f"{allowed_volume}/way-out:/x", "/", "/etc:/workspace/etc"):
        refused = http.post(PATH, json=_body("sandbox.start", sandbox="refused", config={"volumes": [volume]}))
        assert (refused.status_code, refused.json()["code"]) in {(400, 2001), (404, 4001)}, volume
        assert "volumes" in refused.json()["error"]
    found = _call(http, "sandbox.metrics.get")["result"]["sandboxes"]
    assert "refused" not in {one["name"] for one in found}


@pytest.mark.anyio
async def test_tools_over_http_with_a_key_of_one_namespace(keyed: RunningServer, make_key: MakeKey) -> None:
    """The server of old refused every call of such a key."""
    headers = {"Authorization": f"Bearer {make_key('--namespace', 'limited', '--expire', '3m')}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False, verify=False) as http:
        transport = streamable_http_client(f"{keyed.url}/mcp?toolset=microsandbox", http_client=http)
        async with Client(transport) as client:
            for where in ({"sandbox": "a"}, {"sandbox": "a", "namespace": "limited"}):
                assert not (await client.call_tool("sandbox_start", where)).is_error
                code = {"code": "print(6 * 7)", "language": "python"}
                ran = await client.call_tool("sandbox_run_code", {**where, **code})
                assert ran.structured_content is not None
                assert ran.structured_content["output"] == [{"stream": "stdout", "text": "42"}]
            refused = await client.call_tool("sandbox_start", {"sandbox": "a", "namespace": "default"})
            assert refused.is_error
            assert isinstance(refused.content[0], TextContent)
            assert "Leave `namespace` out" in refused.content[0].text
            seen = await client.call_tool("sandbox_get_metrics", {})
            assert seen.structured_content is not None
            assert [one["namespace"] for one in seen.structured_content["sandboxes"]] == ["limited"]
