"""`cove mcp` without a server: one is started, shared, and gone with everything in it when nobody needs it."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.e2e.assistant import Assistant, Assistants, assistants_on
from tests.e2e.conftest import Serve
from tests.e2e.running_server import (
    COVE,
    Process,
    RunningServer,
    clean_environment,
    data_directory,
    left_behind,
    lives,
    run_cove,
    until,
)

from cove.linux.clone import start_time_of
from cove.sdk import Sandbox
from cove.server.local_address import LocalAddress, address_path, living_server, publish, socket_path

GONE_SECONDS = 5.0
FIRST_ANSWER_SECONDS = 1.0
SLEEP = {"code": "import time\nprint('begun', flush=True)\ntime.sleep(600)", "language": "python"}


@pytest.fixture(scope="module")
def shared(built_data_dir: Path) -> Iterator[Assistants]:
    """Assistants of one data directory; the first of them stays, and with it the server."""
    with data_directory(built_data_dir) as data_dir, assistants_on(data_dir) as assistants:
        assistants.greeted().call("health")
        yield assistants


@pytest.fixture
def own(own_data_dir: Path) -> Iterator[Assistants]:
    """Assistants of a data directory where nothing has happened yet."""
    with assistants_on(own_data_dir) as assistants:
        yield assistants


def create(assistant: Assistant) -> str:
    return assistant.call("create_sandbox")["id"]


def leave_remains_of_a_dead_server(data_dir: Path) -> None:
    (data_dir / "run" / "server").mkdir(parents=True)
    address_path(data_dir).write_text('{"socket": "/nowhere", "key": "k", "pid": 1, "started": 1}')
    socket_path(data_dir).touch()


def test_from_nothing_to_a_result_and_back(own: Assistants) -> None:
    leave_remains_of_a_dead_server(own.data_dir)
    # The layers are there, so that it is quick: the template that stands on them is built at the start.
    (own.data_dir / "templates").unlink()
    assistant = own.start()
    assert assistant.greet()["serverInfo"]["name"] == "cove"
    assert time.monotonic() - assistant.started < FIRST_ANSWER_SECONDS
    names = [tool["name"] for tool in assistant.request("tools/list", {})["result"]["tools"]]
    assert "execute_code_isolated" in names
    assert assistant.call("execute_code_isolated", code="print(6 * 7)")["stdout"] == "42\n"
    sandbox = create(assistant)
    traces = own.traces(sandbox)
    server = own.server_process()
    assert assistant.leave() == 0
    until(lambda: not traces.present(), seconds=GONE_SECONDS, what="the sandbox is gone")
    # Nobody has come for 5 s: it ends by itself, and with it the host daemon, the pool and the files.
    until(lambda: not lives(server), seconds=20, what="the server ends")
    assert living_server(own.data_dir) is None
    until(lambda: not left_behind(own.data_dir), seconds=GONE_SECONDS, what=f"nothing: {left_behind(own.data_dir)}")
    assert own.starts() == 1
    assert (own.data_dir / "templates" / "code-interpreter.json").exists()


def test_only_the_owner_can_come_in(shared: Assistants) -> None:
    for path in (address_path(shared.data_dir), socket_path(shared.data_dir)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert json.loads(address_path(shared.data_dir).read_text())["on_demand"]
    assistant = shared.greeted()
    url: str = assistant.call("get_agent_url", sandbox_id=create(assistant))["agent_url"]
    parts = urlsplit(url)
    assert parts.hostname == "127.0.0.1"
    answer = httpx2.get(f"http://127.0.0.1:{parts.port}/v1/sandboxes", timeout=10, trust_env=False)
    assert answer.status_code == 401
    assert httpx2.get(f"{url}/info", timeout=10, trust_env=False).status_code == 401
    assistant.leave()


def test_a_page_that_a_program_serves_can_be_looked_at(shared: Assistants) -> None:
    assistant = shared.greeted()
    sandbox = create(assistant)
    assistant.call("file_write", sandbox_id=sandbox, path="/workspace/index.html", content="<h1>Hello</h1>")
    assistant.call("run_command_background", sandbox_id=sandbox, command="python3 -m http.server 8000 -d /workspace")
    url: str = assistant.call("get_preview_url", sandbox_id=sandbox, port=8000)["preview_url"]
    until(lambda: httpx2.get(url, timeout=10, trust_env=False).status_code == 200, seconds=10, what="it listens")
    assert httpx2.get(url, timeout=10, trust_env=False).text == "<h1>Hello</h1>"
    assistant.leave()


def test_sandboxes_of_another_server_stay(own: Assistants, serve: Serve) -> None:
    server = serve("--keep-sandboxes")
    sandbox = Sandbox.create(base_url=server.url)
    sandbox.run_code("kept = 1")
    sandbox.close()
    server.stop()
    assistant = own.greeted()
    own_sandbox = own.traces(create(assistant))
    on_demand = own.server_process()
    assert assistant.leave() == 0
    until(lambda: not lives(on_demand), seconds=20, what="the server ends")
    assert not own_sandbox.present()
    with Sandbox.connect(sandbox.sandbox_id, base_url=serve().url) as again:
        assert again.run_code("print(kept)").stdout == "1\n"


@pytest.mark.parametrize("end", ["stdin", "SIGTERM", "SIGINT", "SIGKILL"])
def test_sandboxes_end_with_their_assistant(shared: Assistants, end: str) -> None:
    assistant = shared.greeted()
    traces = shared.traces(create(assistant))
    running = assistant.begin("tools/call", {"name": "execute_code_isolated", "arguments": {**SLEEP, "timeout": 300}})
    assert running
    before = time.monotonic()
    match end:
        case "stdin":
            assert assistant.leave() == 0
        case "SIGKILL":
            assistant.end(signal.SIGKILL)
        case _:
            assert assistant.end(getattr(signal, end)) == (130 if end == "SIGINT" else 0)
    assert time.monotonic() - before < GONE_SECONDS
    until(lambda: not traces.present(), seconds=GONE_SECONDS, what=f"nothing left of {traces.present()}")
    until(lambda: not records_of(shared), seconds=GONE_SECONDS, what="what was being run has ended")


def records_of(assistants: Assistants) -> list[str]:
    """Sandboxes that are not the pool's."""
    records = [json.loads(path.read_text()) for path in (assistants.data_dir / "run" / "sandboxes").glob("*.json")]
    return [record["sandbox_id"] for record in records if not record["pooled"]]


CLIENT = """
import json, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def ask(number, method, params):
    message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    child.stdin.write(json.dumps(message).encode() + b"\\n")
    child.stdin.flush()
    return json.loads(child.stdout.readline())
client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
ask(1, "initialize", client)
child.stdin.write(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\\n')
answer = ask(2, "tools/call", {"name": "create_sandbox", "arguments": {}})
print(child.pid, answer["result"]["structuredContent"]["id"], flush=True)
sys.stdin.read()
"""


def test_sandboxes_end_with_a_client_that_is_killed(shared: Assistants) -> None:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, *COVE, "mcp", "--data-dir", str(shared.data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
    )
    with client:
        assert client.stdout
        pid, sandbox = client.stdout.readline().split()
        traces = shared.traces(sandbox.decode())
        mcp = Process(int(pid), start_time_of(int(pid)))
        client.kill()
    until(lambda: not lives(mcp), seconds=GONE_SECONDS, what="cove mcp has ended")
    until(lambda: not traces.present(), seconds=GONE_SECONDS, what=f"nothing left of {traces.present()}")


def test_two_share_a_server_that_is_killed_at_last(own: Assistants) -> None:
    first, second = own.start(), own.start()
    for assistant in (first, second):
        assistant.greet()
    # At the same moment, while the server is still being started.
    numbers = [
        assistant.begin("tools/call", {"name": "create_sandbox", "arguments": {}}) for assistant in (first, second)
    ]
    made = [
        assistant.answer(number)["result"]["structuredContent"]["id"]
        for assistant, number in zip((first, second), numbers, strict=True)
    ]
    assert own.starts() == 1
    traces = [own.traces(sandbox) for sandbox in made]
    assert "SANDBOX_NOT_FOUND" in first.refused("execute_code", sandbox_id=made[1], code="1")
    listed = second.call("list_sandboxes")
    assert made[1] in json.dumps(listed)
    assert made[0] not in json.dumps(listed)

    first.end(signal.SIGKILL)
    until(lambda: not traces[0].present(), seconds=GONE_SECONDS, what="the sandbox of the first is gone")
    assert second.call("execute_code", sandbox_id=made[1], code="print('unharmed')")["stdout"] == "unharmed\n"
    assert len(traces[1].present()) >= 3
    _kill_server(own, second, made[1])


def _kill_server(own: Assistants, assistant: Assistant, sandbox: str) -> None:
    """It leaves nothing and is replaced at the next call."""
    traces, server, daemon = own.traces(sandbox), own.server_process(), own.host_daemon()
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not lives(daemon), seconds=GONE_SECONDS, what="the host daemon ends with its server")
    until(lambda: not traces.present(), seconds=GONE_SECONDS, what=f"nothing left of {traces.present()}")
    assert not [remains for remains in left_behind(own.data_dir) if "sandbox" in remains or "mount" in remains]

    assert assistant.call("execute_code_isolated", code="print('again')")["stdout"] == "again\n"
    assert own.starts() == 2
    told = assistant.refused("execute_code", sandbox_id=sandbox, code="1")
    assert "has ended" in told
    assert "SANDBOX_EXPIRED" in told


def test_a_host_daemon_that_is_killed_is_replaced(shared: Assistants) -> None:
    assistant = shared.greeted()
    sandbox = create(assistant)
    assistant.call("execute_code_persistent", sandbox_id=sandbox, code="x = 5")
    daemon = shared.host_daemon()
    os.kill(daemon.pid, signal.SIGKILL)
    until(lambda: not lives(daemon), seconds=GONE_SECONDS, what="the host daemon is dead")
    assert assistant.call("execute_code_persistent", sandbox_id=sandbox, code="print(x)")["stdout"] == "5\n"
    traces = shared.traces(sandbox)
    assert assistant.leave() == 0
    until(lambda: not traces.present(), seconds=2 * GONE_SECONDS, what=f"nothing left of {traces.present()}")


def test_serve_says_who_has_the_data_directory(shared: Assistants) -> None:
    refused = run_cove("serve", "--dev", "--port", "0", "--data-dir", str(shared.data_dir))
    assert refused.returncode == 1
    assert b"cove mcp" in refused.stderr
    server = shared.server().pid
    parent = int(Path(f"/proc/{server}/stat").read_text().rpartition(") ")[2].split()[1])
    assert any(f"kill {pid}`".encode() in refused.stderr for pid in (server, parent)), "the server, or its supervisor"


def test_a_server_that_runs_already_is_used(own: Assistants, serve: Serve) -> None:
    server = serve()
    with Sandbox.create("base", base_url=server.url) as operators:
        _expect_used(own, server, operators.sandbox_id)


def _expect_used(own: Assistants, server: RunningServer, operators: str) -> None:
    assistant = own.greeted()
    sandbox = create(assistant)
    assert own.server().pid == server.pid
    assert not own.server().on_demand
    assert own.starts() == 0
    assert "SANDBOX_NOT_FOUND" in assistant.refused("execute_code", sandbox_id=operators, code="1")
    traces = own.traces(sandbox)
    assert assistant.leave() == 0
    until(lambda: not traces.present(), seconds=GONE_SECONDS, what=f"nothing left of {traces.present()}")
    assert server.process.poll() is None
    assert records_of(own) == [operators]


def test_a_server_whose_public_address_is_elsewhere(own: Assistants, serve: Serve) -> None:
    serve("--public-url", "https://sandboxes.example")
    assistant = own.greeted()
    sandbox = create(assistant)
    assert assistant.call("execute_code_persistent", sandbox_id=sandbox, code="print(6 * 7)")["stdout"] == "42\n"
    url = assistant.call("get_preview_url", sandbox_id=sandbox, port=8000)["preview_url"]
    assert url == f"https://sandboxes.example/sandboxes/{sandbox}/ports/8000/"
    assistant.leave()


def test_a_server_of_another_version_is_named(own: Assistants) -> None:
    (own.data_dir / "run").mkdir()
    mine = LocalAddress.own(socket=socket_path(own.data_dir), key="cove_delegated_x", on_demand=False)
    fields = {name: getattr(mine, name) for name in ("socket", "key", "pid", "started", "on_demand")}
    publish(own.data_dir, LocalAddress(version="0.0.1", **fields))
    told = own.greeted().refused("execute_code_isolated", code="1")
    assert "0.0.1" in told
    assert str(os.getpid()) in told


def test_a_data_directory_that_cannot_be_used_is_told_at_the_call(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with assistants_on(tmp_path) as assistants:
        assistant = assistants.greeted("--data-dir", str(file / "below"))
        assert "--data-dir" in assistant.refused("execute_code_isolated", code="1")
