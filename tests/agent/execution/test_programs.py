"""Bash, Go and commands."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from cove.agent.execution.golang import complete_program
from cove.models.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from tests.agent.execution.conftest import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]


async def test_bash(sandbox: Sandbox) -> None:
    answer = await sandbox.run("sh", "echo out; echo err >&2; x=1; exit 3")
    assert (answer.stdout, answer.stderr, answer.exit_code, answer.language) == ("out\n", "err\n", 3, "bash")
    assert (await sandbox.run("bash", "echo [$x]")).stdout == "[]\n"
    assert (await sandbox.run("bash", "read line; echo $?")).stdout == "1\n"
    assert (await sandbox.run("bash", "kill -9 $$")).exit_code == 137


async def test_long_script(sandbox: Sandbox) -> None:
    code = "# " + "x" * 300_000 + "\necho end"
    assert (await sandbox.run("bash", code)).stdout == "end\n"
    assert (await sandbox.python(code.replace("echo end", "print('end')"))).stdout == "end\n"


async def test_command_with_arguments(sandbox: Sandbox) -> None:
    answer = await sandbox.command("printf", args=("%s|", "a b", "$HOME"))
    assert (answer.stdout, answer.exit_code, answer.success, answer.command) == ("a b|$HOME|", 0, True, "printf")
    assert answer.pid > 0
    assert answer.execution_id.startswith("cmd_")
    assert (await sandbox.command("echo $((1+1)) | cat")).stdout == "2\n"


async def test_command_that_cannot_be_executed(sandbox: Sandbox) -> None:
    missing = await sandbox.command("no-such-program", args=())
    assert (missing.exit_code, missing.stderr) == (127, "no-such-program: command not found\n")
    (sandbox.workspace / "plain").write_text("x")
    refused = await sandbox.command("./plain", args=())
    assert (refused.exit_code, refused.stderr) == (126, "./plain: permission denied\n")


async def test_commands_run_beside_each_other(sandbox: Sandbox) -> None:
    import anyio

    async with anyio.create_task_group() as group:
        group.start_soon(sandbox.command, "while [ ! -e go ]; do sleep 0.01; done")
        await sandbox.command("touch go")
    assert sandbox.executor.counters().active == 0


async def test_programs_see_no_descriptors_of_this_process(sandbox: Sandbox) -> None:
    listing = "import os\nfor fd in range(256):\n    try: os.fstat(fd)\n    except OSError: pass\n    else: print(fd)"
    assert (await sandbox.command("python3", args=("-c", listing))).stdout == "0\n1\n2\n"
    # 3 is the channel; one more is /dev/null, and two are spare ones, for when its user holds all others.
    assert len((await sandbox.python(listing)).stdout.split()) <= 7


async def test_unknown_language(sandbox: Sandbox) -> None:
    with pytest.raises(Unsupported) as caught:
        await sandbox.run("cobol", "x")
    assert caught.value.code == "UNSUPPORTED_LANGUAGE"
    assert "python" in caught.value.remedy


@pytest.mark.parametrize("language", ["javascript", "go"])
async def test_language_without_its_program(sandbox: Sandbox, language: str) -> None:
    sandbox.environment.merge({"PATH": "/nonexistent"})
    with pytest.raises(Unsupported) as caught:
        await sandbox.run(language, "1")
    assert caught.value.code == "UNSUPPORTED_LANGUAGE"
    assert "PATH" in caught.value.message


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
async def test_text_that_no_program_can_take(sandbox: Sandbox, text: str) -> None:
    with pytest.raises(InvalidRequest):
        await sandbox.run("bash", text)
    with pytest.raises(InvalidRequest):
        await sandbox.command("echo", args=(text,))


async def test_counters(sandbox: Sandbox) -> None:
    await sandbox.python("1")
    await sandbox.run("bash", "exit 1")
    await sandbox.command("true")
    counters = sandbox.executor.counters()
    assert (counters.active, counters.total, counters.errors) == (0, 3, 1)
    assert set(counters.average_ms) == {"python", "bash", "command"}
    assert all(value > 0 for value in counters.average_ms.values())


@pytest.mark.timeout(150, method="signal")
async def test_go(sandbox: Sandbox) -> None:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("go is not on PATH")
    sandbox.environment.merge({"GOCACHE": "/tmp/cove-test-gocache"})
    code = 'package main\nimport ("fmt"; "os")\nfunc main() { fmt.Println("hi"); os.Exit(5) }'
    answer = await sandbox.run("go", code, timeout=120)
    assert (answer.stdout, answer.exit_code) == ("hi\n", 5)
    broken = await sandbox.run("go", "x := 1\nfmt.Println(y)", timeout=60)
    assert broken.exit_code != 0
    assert "main.go:2" in broken.stderr
    snippet = "type P struct{ x int }\nfunc (p P) twice() int {\n\treturn 2 * p.x\n}\nfmt.Println(P{4}.twice())"
    assert (await sandbox.run("go", snippet, timeout=60)).stdout == "8\n"
    assert (await sandbox.run("go", "for {}", timeout=3)).exit_code == 124


def test_complete_go_program_is_left_alone() -> None:
    for code in ("package main\nfunc main() {}", "// comment\n/* more */\npackage main\n"):
        assert complete_program(code) == code


def test_go_statements_become_a_program() -> None:
    program = complete_program('import "strings"\nfunc f() string {\n\treturn "a"\n}\nprintln(strings.ToUpper(f()))')
    assert program.startswith('package main\nimport "strings"\n')
    assert program.index("func f()") < program.index("func main() {") < program.index("println(")
    assert "//line main.go:5\nprintln" in program


def test_go_with_a_main_function_keeps_its_lines() -> None:
    program = complete_program("func main() {\n\tfmt.Println(1)\n}")
    assert program.startswith('package main\nimport "fmt"\n//line main.go:1\nfunc main()')
