"""The commands against a real server, as separate processes: what a shell script would see."""

import json
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.e2e.running_server import HERE, warm_cove

from cove.cli import output
from cove.models.errors import error

WAIT_SECONDS = 60
PROGRAM = "from cove.cli import {module}; {module}.app()"
Run = Callable[..., subprocess.CompletedProcess[str]]


class Server(ThreadingHTTPServer):
    """A control plane in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.sandboxes: dict[str, dict[str, Any]] = {}
        self.refused: set[str] = set()

    def add(self, **fields: Any) -> str:
        sandbox_id = f"17633820{len(self.sandboxes):02d}abcdefgh"
        self.sandboxes[sandbox_id] = {
            "id": sandbox_id,
            "status": "running",
            "template_name": "code-interpreter",
            "public_host": f"{self.url}/sandboxes/{sandbox_id}",
            "direct_url": self.url,
            "created_at": "2026-01-01T00:00:00Z",
            "isolation": "namespace",
            "resources": {"vcpu": 2, "memory_mb": 1024, "disk_mb": 2048},
        } | fields
        return sandbox_id


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if self.headers["X-API-Key"] != "key":
            self._fail(401, "AUTHENTICATION_REQUIRED", "A valid API key is needed.")
        elif path == "/v1/sandboxes":
            self._answer(200, {"data": [*self.server.sandboxes.values()]})
        elif path == "/v1/templates":
            template = {"id": "1", "name": "base", "display_name": "Base", "description": "small [red]\x1b[31m"}
            self._answer(200, {"data": [template]})
        else:
            self._one(path)

    def do_DELETE(self) -> None:
        sandbox_id = self.path.rsplit("/", 1)[-1]
        if sandbox_id in self.server.refused:
            self._fail(409, "CONFLICT", "It is being made.")
        elif self._one(self.path):
            del self.server.sandboxes[sandbox_id]

    def _one(self, path: str) -> bool:
        found = self.server.sandboxes.get(path.rsplit("/", 1)[-1])
        if found is None:
            self._fail(404, "SANDBOX_NOT_FOUND", "There is no such sandbox.")
        else:
            self._answer(200, found)
        return found is not None

    def _fail(self, status: int, code: str, message: str) -> None:
        self._answer(status, {"error": {"code": code, "message": message, "details": {}}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join(WAIT_SECONDS)


@pytest.fixture
def environment(server: Server) -> dict[str, str]:
    return os.environ | {"COVE_BASE_URL": server.url, "COVE_API_KEY": "key", "COLUMNS": "80"}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(module: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        given = environment | changes
        done = warm_cove().run(module, *arguments, stdin=b"", seconds=WAIT_SECONDS, environment=given, directory=HERE)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def test_list_shows_a_table(server: Server, run: Run) -> None:
    first = server.add()
    second = server.add(template_name="evil [bold]\x1b[2J\n", status="paused", expires_at="2999-01-01T00:00:00Z")
    done = run("sandboxes", "list")
    assert done.returncode == 0, done.stderr
    header, *rows = [line for line in done.stdout.splitlines() if line.strip(" ─")]
    assert header.split() == ["ID", "NAME", "TEMPLATE", "STATUS", "ISOLATION", "AGE", "EXPIRES"]
    assert [row.split()[0] for row in rows] == [first, second]
    assert "never" in rows[0]
    assert "evil [bold]\N{REPLACEMENT CHARACTER}[2J" in rows[1]
    assert "\x1b" not in done.stdout


def test_list_as_json(server: Server, run: Run) -> None:
    ids = [server.add(), server.add()]
    done = run("sandboxes", "list", "--json")
    assert [item["id"] for item in json.loads(done.stdout)] == ids


def test_list_of_nothing(run: Run) -> None:
    done = run("sandboxes", "list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No sandboxes.\n")
    assert run("sandboxes", "list", "--json").stdout == "[]\n"


def test_info(server: Server, run: Run) -> None:
    sandbox_id = server.add(isolation_summary="shared kernel")
    done = run("sandboxes", "info", sandbox_id)
    assert "isolation  namespace (shared kernel)\n" in done.stdout
    assert "resources  2 vCPU, 1024 MiB memory, 2048 MiB disk\n" in done.stdout
    as_json = json.loads(run("sandboxes", "info", sandbox_id, "--json").stdout)
    assert (as_json["id"], as_json["resources"]["vcpu"]) == (sandbox_id, 2)


def test_info_of_a_missing_sandbox(run: Run) -> None:
    done = run("sandboxes", "info", "1763382095i648uu1o")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: There is no such sandbox.\n`cove sandboxes list` shows what exists.\n"
    done = run("sandboxes", "info", "1763382095i648uu1o", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "SANDBOX_NOT_FOUND"


def test_kill_goes_on_after_a_failure(server: Server, run: Run) -> None:
    first, second, kept = server.add(), server.add(), server.add()
    done = run("sandboxes", "kill", first, "1763382095i648uu1o", "../x", second, first)
    assert done.returncode == 1
    assert done.stdout.split() == [first, second]
    assert "1763382095i648uu1o: There is no such sandbox." in done.stderr
    assert "'../x' is not a sandbox id" in done.stderr
    assert [*server.sandboxes] == [kept]


def test_kill_as_json(server: Server, run: Run) -> None:
    first, refused = server.add(), server.add()
    server.refused.add(refused)
    done = run("sandboxes", "kill", first, refused, "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert answer["killed"] == [first]
    assert [(item["id"], item["error"]["code"]) for item in answer["failed"]] == [(refused, "CONFLICT")]


def test_kill_all_needs_a_yes(server: Server, run: Run) -> None:
    ids = [server.add(), server.add()]
    for arguments in (["--all"], ["--all", "--json"], [], ["--all", "--yes", ids[0]]):
        assert run("sandboxes", "kill", *arguments).returncode == 2
        assert [*server.sandboxes] == ids
    done = run("sandboxes", "kill", "--all", "--yes")
    assert (done.returncode, done.stdout.split()) == (0, ids)
    assert server.sandboxes == {}


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, 1), (b"y\n", 0, 0)])
def test_kill_all_asks_on_a_terminal(
    server: Server, environment: dict[str, str], answer: bytes, code: int, left: int
) -> None:
    server.add()
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        command = [sys.executable, "-c", PROGRAM.format(module="sandboxes"), "kill", "--all"]
        done = subprocess.run(command, env=environment, stdin=theirs, capture_output=True, timeout=WAIT_SECONDS)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, len(server.sandboxes)) == (code, left)


def test_templates(run: Run) -> None:
    done = run("templates", "list")
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-2].split()
    assert row == ["base", "1", "active", "small", "[red]\N{REPLACEMENT CHARACTER}[31m"]
    assert [item["name"] for item in json.loads(run("templates", "list", "--json").stdout)] == ["base"]


@pytest.mark.parametrize("module", ["sandboxes", "templates"])
def test_no_server_says_how_to_start_one(run: Run, module: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    done = run(module, "list", COVE_BASE_URL=url)
    assert done.returncode == 1
    assert url in done.stderr
    assert "cove serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_key_and_the_options(run: Run, server: Server) -> None:
    done = run("sandboxes", "list", "--api-key", "wrong", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "AUTHENTICATION_REQUIRED")
    elsewhere = {"COVE_BASE_URL": "http://127.0.0.1:1", "COVE_API_KEY": "wrong"}
    done = run("sandboxes", "list", "--api-key", "key", "--base-url", server.url, **elsewhere)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (0.9, "0 s"), (61, "1 min 1 s"), (7200, "2 h"), (90061, "1 d 1 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_errors_cannot_draw_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        output.fail(error("INTERNAL_ERROR", "a\x1b]0;title\x07b\nc", remedy="\x9b2J"))
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    assert "\x9b" not in shown
    assert shown.count("\n") == 2


def test_commands_start_without_the_client() -> None:
    code = (
        "import sys, cove.cli.sandboxes, cove.cli.templates;"
        "print([name for name in ('httpx2', 'rich', 'cove.sdk') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_SECONDS, check=True
    )
    assert done.stdout == "[]\n"
