"""Programs in real sandboxes, reached through a real server."""

import contextlib
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from tests.certificates import Signed, sign
from tests.e2e.running_server import RunningServer, data_directory, running_server, until

from cove.sdk import Sandbox

DOMAIN = "cove.test"
SECONDS = 30.0

PROGRAM = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/stream":
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            while True:
                self.wfile.write(b"x" * 65536)
        if self.headers["Upgrade"]:
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "websocket")
            self.end_headers()
            self.wfile.write(repr(sorted(self.headers.items())).encode())
            self.close_connection = True
            return
        body = repr((self.path, sorted(name.lower() for name in self.headers), self.headers["Host"])).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "a=b; Domain=cove.test")
        self.send_header("Set-Cookie", "__Host-cove-preview=of-the-program; Path=/; Secure")
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Handler).serve_forever()
"""
START = f"""
import subprocess, sys, time, socket
subprocess.Popen([sys.executable, "-c", {PROGRAM!r}])
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    try:
        socket.create_connection(("127.0.0.1", 3000), 1).close()
        break
    except OSError:
        time.sleep(0.01)
"""


class Place(NamedTuple):
    """A server with a domain and a certificate, and a sandbox on it with a program."""

    server: RunningServer
    port: int
    signed: Signed
    sandbox: dict[str, Any]

    def host(self, port: int = 3000, sandbox_id: str = "") -> str:
        return f"{port}-{sandbox_id or self.sandbox['id']}.{DOMAIN}"

    def ask(
        self, path: str = "/", *, host: str, token: str = "", tls: bool = False, fields: dict[str, str] | None = None
    ) -> httpx2.Response:
        """Ask under a host name, without resolving it."""
        verify = ssl.create_default_context(cafile=str(self.signed.authority)) if tls else True
        headers = (
            {"Host": f"{host}:{self.port}"} | ({"Authorization": f"Bearer {token}"} if token else {}) | (fields or {})
        )
        scheme, extensions = ("https", {"sni_hostname": host}) if tls else ("http", {})
        with httpx2.Client(timeout=SECONDS, trust_env=False, verify=verify) as client:
            return client.get(f"{scheme}://127.0.0.1:{self.port}{path}", headers=headers, extensions=extensions)


def _sandbox_with_program(server: RunningServer, **options: Any) -> dict[str, Any]:
    with httpx2.Client(base_url=server.url, timeout=60, trust_env=False) as api:
        wanted = {"template_name": "base", "timeout_seconds": 600, **options}
        sandbox = api.post("/v1/sandboxes", json=wanted).json()
        answer = api.post(
            f"/sandboxes/{sandbox['id']}/execute",
            json={"code": START, "language": "python"},
            headers={"Authorization": f"Bearer {sandbox['auth_token']}"},
        )
        assert answer.json()["success"], answer.text
        return sandbox


@pytest.fixture(scope="module")
def place(built_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    signed = sign(tmp_path_factory.mktemp("tls"), DOMAIN, f"*.{DOMAIN}")
    options = ("--dev", "--domain", DOMAIN, "--tls-cert", str(signed.certificate), "--tls-key", str(signed.key))
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, *options) as server:
        port = int(server.url.rpartition(":")[2])
        yield Place(server, port, signed, _sandbox_with_program(server))


def test_addresses_are_those_that_hopx_clients_understand(place: Place) -> None:
    sandbox_id, port = place.sandbox["id"], place.port
    address = f"https://7777-{sandbox_id}.{DOMAIN}:{port}/.vms.hopx.dev"
    assert place.sandbox["public_host"] == place.sandbox["direct_url"] == address
    assert place.sandbox["preview_url"] == f"https://{{port}}-{sandbox_id}.{DOMAIN}:{port}/"


@pytest.mark.parametrize("tls", [True, False])
def test_a_program_at_its_host_name(place: Place, tls: bool) -> None:
    answer = place.ask("/.vms.hopx.dev/a?b", host=place.host(), tls=tls)
    assert answer.status_code == 200, answer.text
    path, fields, host = eval(answer.text)
    assert (path, host) == ("/a?b", f"{place.host()}:{place.port}")
    assert {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"} <= set(fields)
    assert answer.headers["set-cookie"] == "a=b"


def test_a_program_below_a_path(place: Place) -> None:
    answer = httpx2.get(
        f"{place.server.url}/sandboxes/{place.sandbox['id']}/ports/3000?q", follow_redirects=True, timeout=SECONDS
    )
    assert answer.status_code == 200
    assert eval(answer.text)[0] == "/?q"
    assert "set-cookie" not in answer.headers
    assert "sandbox" in answer.headers["content-security-policy"]


def test_the_agent_wants_its_token_under_every_address(place: Place) -> None:
    path = f"/sandboxes/{place.sandbox['id']}/ports/7777/health"
    for address, host in (
        ("/health", place.host(7777)),
        ("/.vms.hopx.dev/health", place.host(7777)),
        (path, "localhost"),
    ):
        assert place.ask(address, host=host).status_code == 401
        answer = place.ask(address, host=host, token=place.sandbox["auth_token"])
        assert (answer.status_code, answer.json()["status"]) == (200, "healthy")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("3000-{id}.evil.example", 403),
        ("3000-{id}.cove.test.evil.example", 403),
        ("3000-{ID}.COVE.TEST", 200),
        ("3000-{id}.cove.test.", 200),
        ("0-{id}.cove.test", 404),
        ("65536-{id}.cove.test", 404),
        ("03000-{id}.cove.test", 404),
        ("3000-1763382095zzzzzzzz.cove.test", 404),
        ("cove.test", 200),
        ("api.cove.test", 200),
        ("other.cove.test", 403),
    ],
)
def test_host_names(place: Place, host: str, status: int) -> None:
    sandbox_id = place.sandbox["id"]
    name = host.replace("{id}", sandbox_id).replace("{ID}", sandbox_id.upper())
    assert place.ask("/health", host=name).status_code == status


def test_a_port_on_which_nothing_listens(place: Place) -> None:
    answer = place.ask(host=place.host(3001))
    assert (answer.status_code, answer.json()["code"]) == (502, "PORT_NOT_OPEN")
    assert "port 3001" in answer.json()["message"]


def test_a_closed_preview_of_a_sandbox_without_a_network(place: Place) -> None:
    sandbox = _sandbox_with_program(place.server, preview_access="token", network={"preset": "none"})
    assert (sandbox["network"], sandbox["preview_access"]) == (None, "token")
    host = place.host(sandbox_id=sandbox["id"])
    closed = place.ask("/app", host=host, tls=True)
    assert (closed.status_code, closed.json()["code"]) == (401, "UNAUTHORIZED")
    assert place.ask("/app", host=host, tls=True, token=sandbox["auth_token"]).status_code == 200
    with Sandbox.connect(sandbox["id"], base_url=place.server.url) as opened:
        link = opened.preview_link(3000, expires_in=300)
        assert link.url == f"https://{host}:{place.port}/?cove_preview_token={link.token}"
        pages = {"Accept": "text/html"}
        exchanged = place.ask(f"/app?cove_preview_token={link.token}&x=1", host=host, tls=True, fields=pages)
        assert (exchanged.status_code, exchanged.headers["location"]) == (303, "/app?x=1")
        cookie = exchanged.headers["set-cookie"].partition(";")[0]
        assert cookie == f"__Host-cove-preview={link.token}"
        for path, fields in (
            ("/app?x=1", {"Cookie": cookie}),
            (f"/app?x=1&cove_preview_token={link.token}", {}),
            ("/app?x=1", {"X-Cove-Preview-Token": link.token}),
        ):
            answer = place.ask(path, host=host, tls=True, fields=fields)
            assert answer.status_code == 200
            seen, names, _ = eval(answer.text)
            assert seen == "/app?x=1"
            assert {"cookie", "x-cove-preview-token"}.isdisjoint(names)
            assert answer.headers.get_list("set-cookie") == ["a=b"]
        shaking = {"Connection": "Upgrade", "Upgrade": "websocket", "Cookie": f"c=1; {cookie}"}
        spoken = _upgraded(place, host, {**shaking, "Origin": f"https://{host}:{place.port}"})
        assert spoken.startswith(b"HTTP/1.1 101 ")
        assert b"'c=1'" in spoken
        assert link.token.encode() not in spoken
        assert _upgraded(place, host, {**shaking, "Origin": f"https://{place.host()}"}).startswith(b"HTTP/1.1 403 ")
        other = place.ask("/", host=place.host(3001, sandbox["id"]), tls=True, fields={"Cookie": cookie})
        assert other.status_code == 403
        opened.revoke_preview_links()
        assert place.ask("/app", host=host, tls=True, fields={"Cookie": cookie}).json()["code"] == "TOKEN_EXPIRED"
        opened.set_preview_access("public")
        assert place.ask("/app", host=host, tls=True).status_code == 200
        opened.kill()
    gone = place.ask("/", host=host, tls=True, fields={"X-Cove-Preview-Token": link.token})
    assert (gone.status_code, gone.json()["code"]) == (404, "SANDBOX_NOT_FOUND")


def _upgraded(place: Place, host: str, fields: dict[str, str]) -> bytes:
    """The answer to a WebSocket handshake, and what the program says after it."""
    lines = [
        "GET /chat HTTP/1.1",
        f"Host: {host}:{place.port}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    with socket.create_connection(("127.0.0.1", place.port), SECONDS) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        heard = b""
        while (b"\r\n\r\n" not in heard or heard.startswith(b"HTTP/1.1 101 ")) and (data := connection.recv(65536)):
            heard += data
        return heard


def test_a_sandbox_that_is_killed_ends_its_streams(place: Place) -> None:
    sandbox = _sandbox_with_program(place.server)
    with socket.create_connection(("127.0.0.1", place.port), SECONDS) as stream:
        host = place.host(sandbox_id=sandbox["id"])
        stream.sendall(f"GET /stream HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        received = 0
        while received < 4 * 1024 * 1024:
            received += len(stream.recv(65536))
        assert httpx2.delete(f"{place.server.url}/v1/sandboxes/{sandbox['id']}", timeout=SECONDS).status_code == 200
        with contextlib.suppress(ConnectionError):
            while stream.recv(65536):
                pass
    gone = place.ask(host=place.host(sandbox_id=sandbox["id"]))
    never = place.ask(host=place.host(sandbox_id="1763382095zzzzzzzz"))
    assert gone.status_code == never.status_code == 404
    texts = [json.loads(answer.text)["message"].replace(sandbox["id"], "ID") for answer in (gone, never)]
    assert texts[0] == texts[1].replace("1763382095zzzzzzzz", "ID")


def test_the_certificate_is_read_again(place: Place) -> None:
    before = place.signed.certificate.read_bytes(), place.signed.key.read_bytes()
    renewed = sign(place.signed.certificate.parent, DOMAIN, f"*.{DOMAIN}")
    assert renewed.certificate.read_bytes() != before[0]
    os.kill(place.server.process.pid, signal.SIGHUP)

    def trusted() -> bool:
        with contextlib.suppress(httpx2.ConnectError):
            return place.ask(host=place.host(), tls=True).status_code == 200
        return False

    until(trusted, seconds=SECONDS, what="the new certificate is shown")
