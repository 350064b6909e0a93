"""PyPI's `microsandbox` 0.1.8: programs, those too that its own server could not run, each followed by another one."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.running_server import RunningServer
from tests.interop.microsandbox_client import Client, Failed, end_all

PYTHON, NODE = "python", "node"


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Client]:
    """A Python and a Node sandbox, made as the documentation says, without names of ours."""
    try:
        with Client.started(server.url) as started:
            started.do("create", PYTHON, kind="PythonSandbox")
            started.do("create", NODE, kind="NodeSandbox")
            yield started
    finally:
        end_all(server.url)


def _still_works(client: Client, sandbox: str) -> None:
    code = "print('still', 6 * 7)" if sandbox == PYTHON else "console.log('still', 6 * 7)"
    assert client.do("run", sandbox, code=code)["output"] == "still 42"


FINE_PYTHON = [
    ("x = 41\nprint(x + 1)", "42"),
    ("x = 41\nx", "41"),
    ("def f(a):\n    return a * 2\nprint(f(4))", "8"),
    ("def f(a):\n    b = a\n\n    return b + 1\n\nprint(f(4))", "5"),
    (
        "class C:\n    def a(self):\n        return 1\n\n    def b(self):\n        return 2\nprint(C().a() + C().b())",
        "3",
    ),
    ("for i in range(3):\n    print(i)\nprint('done')", "0\n1\n2\ndone"),
    ('print("abc", end="")', "abc"),
    ("if True:\n    y = 1\nelse:\n    y = 2\ny", "1"),
    ("import asyncio\nawait asyncio.sleep(0, 'awaited')", "'awaited'"),
    ("from math import sqrt\nsqrt(16)", "4.0"),
    ("print('a\\n\\nb')", "a\n\nb"),
    ("print('ü€😀')", "ü€😀"),
    ("", ""),
]


@pytest.mark.parametrize(("code", "output"), FINE_PYTHON)
def test_python_that_is_fine(client: Client, code: str, output: str) -> None:
    ran = client.do("run", PYTHON, code=code)
    assert ran == {"status": "success", "language": "python", "has_error": False, "output": output, "error": ""}
    _still_works(client, PYTHON)


@pytest.mark.parametrize(
    ("code", "output", "error"),
    [
        ("print('before')\n1/0\nprint('after')", "before", "ZeroDivisionError: division by zero"),
        ("print((1, 2", "", "SyntaxError"),
        ("name = input()", "", "EOFError"),
        ("import sys\nprint('x')\nsys.exit(3)", "x", ""),
        ("raise SystemExit('bye')", "", "bye"),
        ("undefined_name", "", "NameError"),
        ("import os\nos.kill(os.getpid(), 9)", "", "interpreter"),
    ],
)
def test_python_that_fails(client: Client, code: str, output: str, error: str) -> None:
    ran: dict[str, Any] = client.do("run", PYTHON, code=code)
    assert (ran["status"], ran["has_error"], ran["output"]) == ("error", True, output)
    assert error in ran["error"]
    _still_works(client, PYTHON)


def test_a_clean_exit_is_a_success(client: Client) -> None:
    assert client.do("run", PYTHON, code="import sys\nsys.exit()")["status"] == "success"
    _still_works(client, PYTHON)


def test_state_stays(client: Client) -> None:
    client.do("run", PYTHON, code="import json\nkept = {'a': 1}\ndef show():\n    return json.dumps(kept)")
    assert client.do("run", PYTHON, code="print(show())")["output"] == '{"a": 1}'


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("console.log('Hello from Node.js!')", "Hello from Node.js!"),
        ("let a = 1; console.log(a)", "1"),
        ("let a = 2; console.log(a)", "2"),
        ("const wait = ms => new Promise(done => setTimeout(() => done(ms), ms));\nawait wait(5)", "5"),
        ("console.log('shown'); 6 * 7", "shown\n42"),
        ("const fs = require('fs');\nconsole.log(typeof fs.readFileSync)", "function"),
        ("import { basename } from 'node:path';\nconsole.log(basename('/a/b'))", "b"),
        ("function f(a) {\n  return a;\n\n}\nconsole.log(f(7));", "7"),
        ("process.stdout.write('no end')", "no end"),
        ("console.log('> quoted')\nconsole.log('')\nconsole.log('..')", "> quoted\n\n.."),
    ],
)
def test_javascript_that_is_fine(client: Client, code: str, output: str) -> None:
    ran = client.do("run", NODE, code=code)
    assert (ran["status"], ran["has_error"], ran["error"]) == ("success", False, "")
    assert ran["output"].removesuffix("\ntrue") == output
    _still_works(client, NODE)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("throw new Error('thrown')", "thrown"),
        ("let broken = (", "SyntaxError"),
        ("nothing.at.all", "ReferenceError"),
        ("process.exit(3)", ""),
    ],
)
def test_javascript_that_fails(client: Client, code: str, error: str) -> None:
    ran = client.do("run", NODE, code=code)
    assert ran["status"] == "error"
    assert ran["has_error"]
    assert error in ran["error"]
    _still_works(client, NODE)


def test_a_command_that_takes_too_long(client: Client) -> None:
    loop = ["-c", "import sys; print('on', flush=True)\nwhile True: pass"]
    ran = client.do("command", PYTHON, command="python3", args=loop, timeout=1)
    assert (ran["exit_code"], ran["success"], ran["output"]) == (124, False, "on")
    assert "timeout: ended after 1 s" in ran["error"]


def test_commands(client: Client) -> None:
    ran = client.do("command", PYTHON, command="echo", args=["a b", "$HOME", ";"])
    assert ran == {"exit_code": 0, "success": True, "output": "a b $HOME ;", "error": ""}
    ran = client.do("command", PYTHON, command="sh", args=["-c", "echo out; echo err >&2; exit 3"])
    assert ran == {"exit_code": 3, "success": False, "output": "out", "error": "err"}
    assert client.do("command", PYTHON, command="pwd")["output"] == "/workspace"
    ran = client.do("command", PYTHON, command="no-such-program")
    assert (ran["exit_code"], ran["success"]) == (127, False)
    assert "not found" in ran["error"]
    ran = client.do("command", PYTHON, command="sh", args=["-c", "kill -9 $$"])
    assert (ran["exit_code"], ran["success"]) == (137, False)
    assert client.do("command", PYTHON, command="cat")["output"] == ""
    assert client.do("command", NODE, command="node", args=["-p", "6 * 7"])["output"] == "42"


def test_metrics(client: Client) -> None:
    figures = client.do("metrics", PYTHON)
    assert figures["running"] is True
    assert figures["cpu"] >= 0
    assert figures["memory"] > 0
    assert figures["disk"] > 0


def test_stop_and_start(client: Client) -> None:
    client.do("run", PYTHON, code="open('/workspace/kept', 'w').write('here')")
    client.do("stop", PYTHON)
    with pytest.raises(Failed, match="not started"):
        client.do("run", PYTHON, code="1")
    client.do("start", PYTHON, memory=256, cpus=1.6)
    assert client.do("run", PYTHON, code="print(open('/workspace/kept').read())")["output"] == "here"
