"""The stateful JavaScript interpreter."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.agent.execution.conftest import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]


@pytest.fixture(autouse=True)
def needs_node() -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not on PATH")


async def test_declarations_survive_and_may_be_repeated(sandbox: Sandbox) -> None:
    await sandbox.javascript("const a = 1; let b = 2; class C { m() { return 3 } }\nfunction f() { return 4 }")
    assert (await sandbox.javascript("a + b + new C().m() + f()")).result == "10"
    assert (await sandbox.javascript("const a = 5; a")).result == "5"


async def test_value_is_printed_when_nothing_else_is(sandbox: Sandbox) -> None:
    assert (await sandbox.javascript("({ a: [1, 'x'] })")).stdout == "{ a: [ 1, 'x' ] }\n"
    printed = await sandbox.javascript("console.log('p'); 7")
    assert (printed.stdout, printed.result) == ("p\n", "7")
    assert (await sandbox.javascript("let q = 1")).result is None
    kept = await sandbox.javascript("async function main() { return 9 }\nmain()")
    assert kept.result == "9"


async def test_await_and_what_comes_later(sandbox: Sandbox) -> None:
    assert (await sandbox.javascript("await Promise.resolve(3)")).result == "3"
    later = await sandbox.javascript("setTimeout(() => console.log('late'), 30); console.log('soon')")
    assert later.stdout == "soon\nlate\n"


async def test_modules(sandbox: Sandbox) -> None:
    (sandbox.workspace / "own.mjs").write_text("export default 6; export const seven = 7")
    code = "import six, { seven as s } from './own.mjs'\nimport * as path from 'path';\nconsole.log(six, s, path.sep)"
    assert (await sandbox.javascript(code)).stdout == "6 7 /\n"
    code = "const { readFileSync } = require('fs'); const os = await import('os'); typeof readFileSync + typeof os.cpus"
    assert (await sandbox.javascript(code)).result == "functionfunction"
    assert (await sandbox.javascript('console.log("import(1)")')).stdout == "import(1)\n"


async def test_errors_show_the_users_frames(sandbox: Sandbox) -> None:
    answer = await sandbox.javascript("function f() { throw new TypeError('boo') }\nf()")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("TypeError: boo\n    at f (cell-")
    assert "node:" not in answer.stderr
    assert "javascript_kernel" not in answer.stderr
    assert "SyntaxError" in (await sandbox.javascript("let z = ;")).stderr
    assert (await sandbox.javascript("throw 'text'")).stderr == "Uncaught 'text'\n"


@pytest.mark.parametrize(
    "code", ["setTimeout(() => { throw new Error('later') }, 5)", "Promise.reject(new Error('later'))"]
)
async def test_uncaught_later_error_keeps_the_state(sandbox: Sandbox, code: str) -> None:
    await sandbox.javascript("var kept = 1")
    answer = await sandbox.javascript(code)
    assert (answer.exit_code, answer.kernel_restarted) == (1, False)
    assert answer.stderr.startswith("Error: later")
    assert (await sandbox.javascript("kept")).result == "1"


async def test_exit_and_death(sandbox: Sandbox) -> None:
    for code, exit_code in (("process.exit(3)", 3), ("process.kill(process.pid, 'SIGKILL')", 137)):
        answer = await sandbox.javascript(f"console.log('x'); {code}")
        assert (answer.exit_code, answer.kernel_restarted, answer.stdout) == (exit_code, True, "x\n")
        assert "variables and imports are gone" in answer.stderr
    assert (await sandbox.javascript("1")).kernel_restarted is False


async def test_server_in_the_background(sandbox: Sandbox) -> None:
    code = "const server = require('http').createServer((q, a) => a.end('ok')).listen(0, '127.0.0.1'); undefined"
    assert (await sandbox.javascript(code)).exit_code == 0
    answer = await sandbox.javascript("await (await fetch(`http://127.0.0.1:${server.address().port}`)).text()")
    assert answer.result == "ok"


async def test_output_of_children(sandbox: Sandbox) -> None:
    answer = await sandbox.javascript("require('child_process').execSync('echo child', { stdio: 'inherit' }); 0")
    assert answer.stdout == "child\n"
    assert (await sandbox.javascript("process.stdin.read()")).exit_code == 0


async def test_large_value_is_bounded(sandbox: Sandbox) -> None:
    answer = await sandbox.javascript("'x'.repeat(1e6)", max_output_bytes=1000)
    assert len(answer.result or "") == 1000
