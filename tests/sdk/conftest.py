"""A server for the client's tests: both planes, in memory, behind real sockets."""

import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

WAIT_SECONDS = 10.0
API_KEY = "hopx_live_abcdefghijkl.secret"


@dataclass(frozen=True)
class Seen:
    """A request that reached the server."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Planes:
    """What the server has and has seen. Answers to come can be replaced with `answer_next`."""

    url: str
    socket_path: str
    api_key: str = API_KEY
    seen: list[Seen] = field(default_factory=list[Seen])
    sandboxes: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    env: dict[str, str] = field(default_factory=dict[str, str])
    overrides: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list[tuple[str, int, dict[str, Any]]])
    tokens_issued: int = 0
    valid_tokens: set[str] = field(default_factory=set[str])
    uploaded: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])

    def reset(self) -> None:
        for container in (self.seen, self.overrides):
            container.clear()
        for mapping in (self.sandboxes, self.files, self.env, self.uploaded):
            mapping.clear()
        self.valid_tokens.clear()
        self.tokens_issued = 0

    def answer_next(self, path_end: str, status: int, body: dict[str, Any]) -> None:
        """Answer the next request whose path ends so with an error or anything else."""
        self.overrides.append((path_end, status, body))

    def paths(self) -> list[str]:
        """Method and path of every request, with ids shortened."""
        return [f"{seen.method} {self._short(seen.path)}" for seen in self.seen]

    def to(self, path_end: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path.endswith(path_end)]

    def new_token(self) -> dict[str, str]:
        self.tokens_issued += 1
        token = f"token-{self.tokens_issued}"
        self.valid_tokens.add(token)
        return {"auth_token": token, "token_expires_at": "2099-01-01T00:00:00Z"}

    def add(self, **fields: Any) -> dict[str, Any]:
        sandbox_id = f"17633820{len(self.sandboxes):02d}abcdefgh"
        host = f"{self.url}/sandboxes/{sandbox_id}"
        sandbox = {
            "id": sandbox_id,
            "status": "running",
            "template_name": "code-interpreter",
            "public_host": host,
            "direct_url": host,
            "created_at": "2026-01-01T00:00:00Z",
            "expires_at": None,
            "isolation": "namespace",
        } | fields
        self.sandboxes[sandbox_id] = sandbox
        return sandbox

    def _short(self, path: str) -> str:
        for sandbox_id in self.sandboxes:
            path = path.replace(sandbox_id, "{id}")
        return path


def _failure(status: int, code: str, message: str, **details: Any) -> Response:
    body: dict[str, Any] = {"code": code, "message": message, "request_id": "req_1", "details": details}
    return JSONResponse({"error": body, **body}, status)


def _agent_failure(status: int, code: str, message: str, path: str) -> Response:
    body = {"error": message, "message": message, "code": code, "request_id": "req_2", "path": path}
    return JSONResponse(body, status)


class Application:
    """The routes."""

    def __init__(self, planes: Planes) -> None:
        self.planes = planes
        agent = "/sandboxes/{id}"
        self.app = Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/sandboxes", self.create, methods=["POST"]),
                Route("/v1/sandboxes", self.listing, methods=["GET"]),
                Route("/v1/sandboxes/{id}", self.one, methods=["GET", "DELETE"]),
                Route("/v1/sandboxes/{id}/{action:path}", self.action, methods=["POST", "PUT"]),
                Route("/v1/templates", self.templates),
                Route("/v1/templates/{name:path}", self.template),
                Route(f"{agent}/execute/rich", self.execute, methods=["POST"]),
                Route(f"{agent}/commands/run", self.command, methods=["POST"]),
                Route(f"{agent}/env", self.environment, methods=["GET", "PUT", "PATCH"]),
                Route(f"{agent}/processes", self.processes),
                Route(f"{agent}/metrics/snapshot", self.metrics),
                Route(f"{agent}/info", self.info),
                Route(f"{agent}/files/upload", self.upload, methods=["POST"]),
                Route(f"{agent}/files/write", self.write, methods=["POST"]),
                Route(f"{agent}/files/mkdir", self.mkdir, methods=["POST"]),
                Route(f"{agent}/files/{{operation}}", self.file, methods=["GET", "DELETE"]),
            ]
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body = b"" if scope["path"].endswith("/files/upload") else await request.body()
        self.planes.seen.append(
            Seen(request.method, scope["path"], dict(request.query_params), dict(request.headers), body)
        )
        refused = self._override(scope["path"]) or self._refuse(request)
        if refused is not None:
            await refused(scope, receive, send)
            return

        unread = [{"type": "http.request", "body": body, "more_body": False}]
        if scope["path"].endswith("/files/upload"):
            unread.clear()

        async def replay() -> Any:
            return unread.pop() if unread else await receive()

        await self.app(scope, replay, send)

    def _override(self, path: str) -> Response | None:
        for position, (end, status, body) in enumerate(self.planes.overrides):
            if path.endswith(end):
                del self.planes.overrides[position]
                return JSONResponse(body, status)
        return None

    def _refuse(self, request: Request) -> Response | None:
        path = request.url.path
        if path.startswith("/v1/") and request.headers.get("x-api-key") != self.planes.api_key:
            return _failure(401, "AUTHENTICATION_REQUIRED", "A valid API key is needed.")
        if path.startswith("/sandboxes/"):
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            if token not in self.planes.valid_tokens:
                return _agent_failure(401, "TOKEN_EXPIRED", "The token has expired.", "")
        return None

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy", "version": "0.1.0"})

    async def create(self, request: Request) -> Response:
        wanted = await request.json()
        if wanted.get("template_name") not in ("code-interpreter", "base", None):
            return _failure(404, "TEMPLATE_NOT_FOUND", f"There is no template {wanted['template_name']!r}.")
        return JSONResponse(self.planes.add() | self.planes.new_token(), 201)

    async def listing(self, request: Request) -> Response:
        found = [s for s in self.planes.sandboxes.values() if request.query_params.get("status") in (None, s["status"])]
        start, limit = int(request.query_params.get("cursor", 0)), int(request.query_params["limit"])
        more = start + limit < len(found)
        cursor = str(start + limit) if more else None
        return JSONResponse({"data": found[start : start + limit], "has_more": more, "next_cursor": cursor})

    async def one(self, request: Request) -> Response:
        sandbox = self.planes.sandboxes.get(request.path_params["id"])
        if sandbox is None:
            return _failure(404, "SANDBOX_NOT_FOUND", "There is no such sandbox.")
        if request.method == "DELETE":
            del self.planes.sandboxes[sandbox["id"]]
        return JSONResponse(sandbox)

    async def action(self, request: Request) -> Response:
        sandbox = self.planes.sandboxes.get(request.path_params["id"])
        if sandbox is None:
            return _failure(404, "SANDBOX_NOT_FOUND", "There is no such sandbox.")
        action = request.path_params["action"]
        if action == "token/refresh":
            return JSONResponse(self.planes.new_token())
        if action == "timeout":
            seconds = (await request.json())["timeout_seconds"]
            return JSONResponse({"id": sandbox["id"], "timeout_seconds": seconds, "expires_at": None})
        sandbox["status"] = {"pause": "paused", "resume": "running"}[action]
        return JSONResponse({"id": sandbox["id"], "status": sandbox["status"]})

    async def templates(self, request: Request) -> Response:
        template = {"id": "1", "name": "code-interpreter", "display_name": "Code interpreter", "description": "Python"}
        return JSONResponse({"data": [template]})

    async def template(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ("code-interpreter", "1"):
            return _failure(404, "TEMPLATE_NOT_FOUND", f"There is no template {name!r}.")
        return JSONResponse({"id": "1", "name": "code-interpreter", "display_name": "Code interpreter"})

    async def execute(self, request: Request) -> Response:
        wanted = await request.json()
        failed = wanted["code"] == "raise"
        return JSONResponse(
            {
                "stdout": wanted["code"],
                "exit_code": int(failed),
                "success": not failed,
                "language": wanted["language"],
                "json": {"a": 1},
                "png": "iVBORw0KGgo=",
            }
        )

    async def command(self, request: Request) -> Response:
        wanted = await request.json()
        return JSONResponse({"stdout": wanted["command"], "exit_code": 0, "command": wanted["command"]})

    async def environment(self, request: Request) -> Response:
        if request.method == "PUT":
            self.planes.env.clear()
        if request.method != "GET":
            self.planes.env.update((await request.json())["env_vars"])
        return JSONResponse({"env_vars": self.planes.env, "count": len(self.planes.env), "timestamp": ""})

    async def processes(self, request: Request) -> Response:
        entry = {"pid": 1, "name": "agent", "command": "agent", "user": "user", "status": "sleeping"}
        return JSONResponse({"processes": [entry | {"cpu_percent": 0.0, "memory_mb": 3.5}], "count": 1})

    async def metrics(self, request: Request) -> Response:
        return JSONResponse({"uptime_seconds": 1.5})

    async def info(self, request: Request) -> Response:
        text = dict.fromkeys(("agent_version", "version", "os", "arch", "platform", "start_time"), "x")
        empty: dict[str, Any] = {}
        vm_id = request.path_params["id"]
        return JSONResponse({**text, "vm_id": vm_id, "uptime": 1.0, "endpoints": empty, "features": empty})

    async def write(self, request: Request) -> Response:
        wanted = await request.json()
        self.planes.files[wanted["path"]] = wanted["content"].encode()
        return JSONResponse(
            {"message": wanted.get("encoding", ""), "path": wanted["path"], "size": 0, "timestamp": wanted["mode"]}
        )

    async def mkdir(self, request: Request) -> Response:
        return JSONResponse({"path": (await request.json())["path"]})

    async def upload(self, request: Request) -> Response:
        """Counts and hashes; keeps nothing."""
        _, options = parse_options_header(request.headers["content-type"])
        parts: list[bytearray | None] = []
        digest = hashlib.sha256()
        size = 0

        def begin() -> None:
            parts.append(bytearray() if not parts else None)

        def data(chunk: bytes, start: int, end: int) -> None:
            nonlocal size
            part = parts[-1]
            if part is None:
                digest.update(chunk[start:end])
                size += end - start
            else:
                part += chunk[start:end]

        parser = MultipartParser(options[b"boundary"], {"on_part_begin": begin, "on_part_data": data})
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
        path = (parts[0] or b"").decode()
        self.planes.uploaded[path] = (size, digest.hexdigest())
        return JSONResponse({"message": "", "path": path, "size": size, "timestamp": ""})

    async def file(self, request: Request) -> Response:
        path, operation = request.query_params["path"], request.path_params["operation"]
        if operation == "list":
            return JSONResponse(self._list(path))
        if operation == "exists":
            return JSONResponse({"exists": path in self.planes.files, "path": path})
        if operation == "download" and path.startswith("/big/"):
            return StreamingResponse(_zeros(int(path.removeprefix("/big/"))))
        if path not in self.planes.files:
            return _agent_failure(404, "FILE_NOT_FOUND", f"There is no file {path}.", path)
        if operation == "remove":
            del self.planes.files[path]
            return JSONResponse({"success": True})
        return Response(self.planes.files[path], media_type="application/octet-stream")

    def _list(self, path: str) -> dict[str, Any]:
        entry = {"size": 1, "is_directory": False, "is_dir": False, "permissions": "-rw-r--r--", "mode": "0644"}
        times = {"modified_time": "2026-01-01T00:00:00Z", "modified": "2026-01-01T00:00:00Z"}
        files = [{"name": name.rsplit("/", 1)[-1], "path": name} | entry | times for name in self.planes.files]
        return {"files": files, "path": path, "count": len(files), "truncated": path == "/huge"}


async def _zeros(size: int) -> AsyncIterator[bytes]:
    piece = bytes(64 * 1024)
    while size > 0:
        yield piece[:size]
        size -= len(piece)


@pytest.fixture(scope="session")
def running_planes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planes]:
    tcp = socket.create_server(("127.0.0.1", 0))
    path = tmp_path_factory.mktemp("planes") / "server.sock"
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    unix.listen()
    planes = Planes(f"http://127.0.0.1:{tcp.getsockname()[1]}", str(path))
    config = uvicorn.Config(
        Application(planes), log_level="critical", access_log=False, lifespan="off", ws="none", loop="asyncio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [tcp, unix]}, daemon=True)
    thread.start()
    yield planes
    server.should_exit = True
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    for listener in (tcp, unix):
        listener.close()


@pytest.fixture
def planes(running_planes: Planes, monkeypatch: pytest.MonkeyPatch) -> Planes:
    """The server, empty, and the environment pointing to it."""
    running_planes.reset()
    monkeypatch.setenv("COVE_BASE_URL", running_planes.url)
    monkeypatch.setenv("COVE_API_KEY", running_planes.api_key)
    return running_planes


class ScriptedServer:
    """Reads whole requests and answers each with the next entry of a script; None closes the connection instead."""

    def __init__(self) -> None:
        self.script: list[bytes | None] = []
        self.requests: list[bytes] = []
        self._goodbye = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_SECONDS)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def answer(self, status: int, body: dict[str, Any], *, close: bool = False) -> None:
        """Script one more answer."""
        content = json.dumps(body).encode()
        last = "Connection: close\r\n" if close else ""
        self.raw(f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{last}\r\n".encode() + content)

    def raw(self, answer: bytes) -> None:
        """Script one more answer, byte for byte."""
        self.script.append(answer)

    def hang_up(self) -> None:
        """Script one more closed connection."""
        self.script.append(None)

    def wait_for_goodbye(self) -> None:
        """Until a client has closed a connection that was left open."""
        assert self._goodbye.wait(WAIT_SECONDS)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT_SECONDS)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(WAIT_SECONDS)
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        while True:
            request = self._read(connection)
            if request is None:
                self._goodbye.set()
                return
            self.requests.append(request)
            answer = self.script.pop(0) if self.script else None
            if answer is None:
                return
            connection.sendall(answer)
            if b"connection: close" in answer.lower():
                return

    def _read(self, connection: socket.socket) -> bytes | None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return None
            data += more
        head, body = data.split(b"\r\n\r\n", 1)
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        length = int(lengths[0]) if lengths else 0
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def unused_url() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def silent_url() -> Iterator[str]:
    """An address at which connections are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def sparse_file(tmp_path: Path) -> Path:
    """300 MB that take no space."""
    path = tmp_path / "sparse.bin"
    with path.open("wb") as file:
        file.truncate(300_000_000)
    return path
