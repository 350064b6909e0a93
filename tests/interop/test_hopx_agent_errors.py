"""Every code of error that an agent answers with, really provoked, and what the unmodified clients make of it.

The asynchronous client of `hopx-ai` breaks with a TypeError at PATH_NOT_ALLOWED, PERMISSION_DENIED, EXECUTION_FAILED,
EXECUTION_TIMEOUT, INVALID_TOKEN and COMMAND_FAILED (contract, section 4.1): these are never sent, and what they would
be for has other codes or is a result.
"""

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tests.e2e.running_server import RunningServer
from tests.interop import hopx
from tests.interop.javascript import JavaScript, require_javascript

from cove.core.tokens import LIFETIME_SECONDS, AgentTokens

Sandbox, errors = hopx.client.Sandbox, hopx.errors
There = dict[str, Any]


class Case(NamedTuple):
    """A request that is refused, and the exceptions for it: of the synchronous client, of the others.

    `token` says which one is sent; `at` which sandbox it is sent to.
    """

    method: str
    path: str
    body: Any
    status: int
    sync: str
    asynchronous: str = "AgentError"
    javascript: str = "APIError"
    token: str = "own"
    at: str = "running"


CASES = {
    "METHOD_NOT_ALLOWED": Case("GET", "/execute", None, 405, "AgentError"),
    "INVALID_JSON": Case("POST", "/execute", ["no object"], 400, "AgentError"),
    "MISSING_PARAMETER": Case("POST", "/execute", {}, 400, "AgentError"),
    "INVALID_REQUEST": Case("POST", "/execute", {"code": "1", "timeout": 0}, 400, "AgentError"),
    "INVALID_PATH": Case("POST", "/files/mkdir", {"path": ""}, 400, "FileOperationError"),
    "FILE_NOT_FOUND": Case(
        "GET", "/files/read?path=/none", None, 404, "FileNotFoundError", "FileNotFoundError", "FileNotFoundError"
    ),
    "DIRECTORY_NOT_FOUND": Case("GET", "/files/list?path=/none", None, 404, "FileOperationError"),
    "FILE_ALREADY_EXISTS": Case(
        "POST", "/files/write", {"path": "/etc/passwd", "content": "", "overwrite": False}, 409, "FileOperationError"
    ),
    "FORBIDDEN": Case("POST", "/files/write", {"path": "/etc/passwd", "content": ""}, 403, "AgentError"),
    "PROCESS_NOT_FOUND": Case("POST", "/execute/kill/proc_none", None, 404, "AgentError"),
    "RESOURCE_NOT_FOUND": Case("POST", "/update/apply", None, 404, "AgentError"),
    "UNSUPPORTED_LANGUAGE": Case("POST", "/execute", {"code": "1", "language": "cobol"}, 400, "AgentError"),
    "REQUEST_TOO_LARGE": Case("POST", "/execute", {"code": "#" * 9_000_000}, 413, "AgentError"),
    "DESKTOP_NOT_AVAILABLE": Case(
        *("GET", "/desktop/vnc/status", None, 400),
        *("DesktopNotAvailableError", "DesktopNotAvailableError", "DesktopNotAvailableError"),
    ),
    "UNAUTHORIZED": Case("GET", "/info", None, 401, "AgentError", javascript="AuthenticationError", token="forged"),
    "TOKEN_EXPIRED": Case("GET", "/info", None, 401, "AgentError", javascript="TokenExpiredError", token="expired"),
    "INVALID_STATE": Case("GET", "/info", None, 409, "AgentError", at="paused"),
    "SANDBOX_NOT_FOUND": Case("GET", "/info", None, 404, "AgentError", javascript="SandboxExpiredError", at="killed"),
}


class Place(NamedTuple):
    """A sandbox that runs, one that is paused and one that was killed; and tokens by name."""

    sandboxes: dict[str, Any]
    tokens: dict[str, dict[str, str]]

    def address(self, case: Case) -> str:
        return self.sandboxes[case.at].agent_address

    def token(self, case: Case) -> str:
        return self.tokens[case.at][case.token]


@pytest.fixture(scope="module")
def place(there: There, server: RunningServer) -> Iterator[Place]:
    made = {name: Sandbox.create("base", timeout_seconds=300, **there) for name in ("running", "paused", "killed")}
    long_ago = AgentTokens.load(
        server.data_dir / "keys" / "agent-tokens.pem", clock=lambda: time.time() - LIFETIME_SECONDS - 1
    )
    tokens: dict[str, dict[str, str]] = {}
    for name, sandbox in made.items():
        sandbox.agent_address = sandbox.get_info().public_host
        own = sandbox.get_token()
        expired = long_ago.issue(sandbox.sandbox_id).auth_token
        tokens[name] = {"own": own, "expired": expired, "forged": f"{own.rpartition('.')[0]}.AAAA"}
    try:
        made["paused"].pause()
        made["killed"].kill()
        yield Place(made, tokens)
    finally:
        for name in ("running", "paused"):
            made[name].kill()
        for sandbox in made.values():
            hopx.close(sandbox)


@pytest.mark.parametrize("code", CASES)
def test_the_synchronous_client(place: Place, code: str) -> None:
    case = CASES[code]
    client = hopx.agent_http.AgentHTTPClient(place.address(case), jwt_token=place.token(case))
    began = time.monotonic()
    try:
        with pytest.raises(errors.HopxError) as raised:
            client._request(case.method, case.path, operation="call", json=case.body)
    finally:
        client.close()
    refused = raised.value
    assert (type(refused).__name__, refused.code) == (case.sync, code)
    assert refused.status_code in (case.status, None)
    assert refused.request_id.startswith("req_")
    assert str(refused)
    assert time.monotonic() - began < 1, "it was tried again"


@pytest.mark.anyio
@pytest.mark.parametrize("code", CASES)
async def test_the_asynchronous_client(place: Place, code: str) -> None:
    case = CASES[code]
    client = hopx.async_agent_http.AsyncAgentHTTPClient(place.address(case), jwt_token=place.token(case))
    began = time.monotonic()
    try:
        with pytest.raises(errors.HopxError) as raised:
            await client._request(case.method, case.path, operation="call", json=case.body)
    finally:
        await client.close()
    assert type(raised.value).__name__ == case.asynchronous
    assert str(raised.value)
    assert time.monotonic() - began < 1, "it was tried again"


def test_the_javascript_client(place: Place) -> None:
    require_javascript()
    calls = {
        code: [case.method.lower(), place.address(case), case.path, case.body, place.token(case)]
        for code, case in CASES.items()
        if code != "REQUEST_TOO_LARGE"
    }
    seen = JavaScript("http://unused").run(f"""
        const found = {{}};
        for (const [code, [method, baseURL, path, body, jwtToken]] of Object.entries({json.dumps(calls)})) {{
          const client = new hopx.HTTPClient({{ baseURL, jwtToken, timeout: 20000, maxRetries: 3 }});
          found[code] = await refused(() => method === 'post' ? client.post(path, body) : client[method](path));
        }}
        return found;
    """)
    assert {code: one["class"] for code, one in seen.items()} == {code: CASES[code].javascript for code in calls}
    for code, one in seen.items():
        assert one["requestId"].startswith("req_"), code
        assert "[object" not in one["message"], code
    assert seen["FILE_NOT_FOUND"]["path"] == "/none"


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "import os; os.kill(os.getpid(), 9)"),
        ("python", "import os; os._exit(5)"),
        ("python", "import ctypes; ctypes.string_at(0)"),
        ("python", "x = bytearray(10**12)"),
        ("bash", "kill -9 $$"),
    ],
)
def test_a_program_that_ends_its_interpreter_is_a_result(place: Place, language: str, code: str) -> None:
    sandbox = place.sandboxes["running"]
    result = sandbox.run_code(code, language=language)
    assert result.exit_code != 0
    assert not result.success
    assert sandbox.run_code("print('goes on')").stdout == "goes on\n"


FORBIDDEN_CALLBACKS = [
    *("", "example.org", "//example.org/", "ftp://example.org/", "file:///etc/passwd", "http://", "http:///x"),
    *(
        "http://user:secret@example.org/",
        "http://exa mple.org/",
        "http://example.org/\r\nX: y",
        "http://[",
        "http://a:0/",
    ),
    *("http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/"),
    *("http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/", "http://100.64.0.1/", "http://[fd00::1]/"),
    *("http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://224.0.0.1/", "http://255.255.255.255/"),
    *("http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://a/" + "x" * 3000),
]


@pytest.mark.parametrize("url", FORBIDDEN_CALLBACKS)
def test_callbacks_that_are_refused(place: Place, url: str) -> None:
    with pytest.raises(errors.AgentError) as refused:
        place.sandboxes["running"].run_code_async("print(1)", url)
    assert (refused.value.status_code, refused.value.code) == (400, "INVALID_REQUEST")
    assert "callback_url" in str(refused.value)
    assert "secret" not in str(refused.value)
