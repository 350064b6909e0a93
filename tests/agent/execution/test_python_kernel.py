"""The stateful Python interpreter: state, values, errors, streams."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.agent.execution.conftest import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]


async def test_variables_imports_and_directory_survive(sandbox: Sandbox) -> None:
    await sandbox.python("import math, os\nx = 2\nos.makedirs('sub'); os.chdir('sub')")
    answer = await sandbox.python("print(x, math.floor(2.5), os.path.basename(os.getcwd()))")
    assert answer.stdout == "2 2 sub\n"
    assert not answer.kernel_restarted


async def test_value_of_the_last_expression(sandbox: Sandbox) -> None:
    answer = await sandbox.python("x = 20\nprint('first')\nx + 1")
    assert answer.stdout == "first\n21\n"
    assert answer.result == "21"
    assert (await sandbox.python("_ * 2")).result == "42"
    assert (await sandbox.python("5;")).result is None


async def test_answer_has_its_frame(sandbox: Sandbox) -> None:
    answer = await sandbox.python("print('ä€😀')")
    assert answer.stdout == "ä€😀\n"
    assert (answer.exit_code, answer.success, answer.language) == (0, True, "python")
    assert answer.execution_id.startswith("exec_")
    assert answer.timestamp.endswith("Z")
    assert len(answer.timestamp.rpartition(".")[2]) == len("000000Z")
    assert answer.execution_time > 0


async def test_traceback_shows_only_the_users_frames(sandbox: Sandbox) -> None:
    answer = await sandbox.python("import json\ndef parse(text):\n    return json.loads(text)\nparse('{')")
    assert answer.exit_code == 1
    assert not answer.success
    assert answer.stderr.startswith("Traceback (most recent call last):\n")
    assert "return json.loads(text)" in answer.stderr
    assert "JSONDecodeError" in answer.stderr
    for machinery in ("IPython", "cove", "decoder.py", "\x1b"):
        assert machinery not in answer.stderr


async def test_traceback_of_an_earlier_calls_function(sandbox: Sandbox) -> None:
    await sandbox.python("def broken():\n    return 1 / 0")
    answer = await sandbox.python("try:\n    broken()\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e")
    assert "return 1 / 0" in answer.stderr
    assert "direct cause" in answer.stderr
    assert answer.stderr.endswith("KeyError: 'k'\n")


async def test_syntax_error(sandbox: Sandbox) -> None:
    answer = await sandbox.python("def f(:\n    pass")
    assert answer.exit_code == 1
    assert "SyntaxError" in answer.stderr
    assert "def f(:" in answer.stderr


@pytest.mark.parametrize(
    ("code", "exit_code", "stderr"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("exit(4)", 4, ""),
        ("quit()", 0, ""),
        ("raise SystemExit('bye')", 1, "bye\n"),
        ("import sys; sys.exit(-1)", 255, ""),
    ],
)
async def test_exit_ends_the_call_and_keeps_the_state(sandbox: Sandbox, code: str, exit_code: int, stderr: str) -> None:
    await sandbox.python("kept = 1")
    answer = await sandbox.python(code)
    assert (answer.exit_code, answer.stderr, answer.kernel_restarted) == (exit_code, stderr, False)
    assert (await sandbox.python("kept")).result == "1"


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("os._exit(3)", 3),
        ("import ctypes; ctypes.string_at(0)", 139),
        ("os.kill(os.getpid(), 9)", 137),
        ("os.closerange(3, 1000)", 137),
    ],
)
async def test_death_of_the_interpreter(sandbox: Sandbox, code: str, exit_code: int) -> None:
    answer = await sandbox.python(f"import os\nlost = 1\nprint('before')\n{code}\nprint('after')")
    assert answer.exit_code == exit_code
    assert answer.kernel_restarted
    assert answer.stdout.startswith("before\n")
    assert "variables and imports are gone" in answer.stderr
    fresh = await sandbox.python("import os\nprint('lost' in globals(), os.getcwd())")
    assert fresh.stdout == f"False {sandbox.workspace}\n"
    assert not fresh.kernel_restarted


async def test_death_between_calls_is_told(sandbox: Sandbox) -> None:
    pid = int((await sandbox.python("import os\nos.getpid()")).result or "0")
    await sandbox.command(f"kill -9 {pid}")
    await sandbox.until(lambda: not sandbox.lives(pid))
    answer = await sandbox.python("print('ran')")
    assert answer.stdout == "ran\n"
    assert answer.kernel_restarted
    assert "had ended since the last call" in answer.stderr


async def test_replaced_stdout_does_not_outlive_the_call(sandbox: Sandbox) -> None:
    answer = await sandbox.python("import sys, io\nprint('a')\nsys.stdout = io.StringIO()\nprint('hidden')")
    assert answer.stdout == "a\n"
    assert (await sandbox.python("print('b')")).stdout == "b\n"
    await sandbox.python("sys.stdout.close(); sys.stderr.close()")
    assert (await sandbox.python("print('c')")).stdout == "c\n"


async def test_output_of_children_and_c_code(sandbox: Sandbox) -> None:
    code = (
        "import subprocess, os, ctypes\nsubprocess.run(['echo', 'child'])\nos.system('echo shell >&2')\n"
        "os.write(1, b'raw\\n')\nctypes.CDLL(None).printf(b'from C\\n')"
    )
    answer = await sandbox.python(code + ";")
    assert set(answer.stdout.split("\n")) >= {"child", "raw", "from C"}
    assert answer.stderr == "shell\n"


async def test_input_is_at_its_end(sandbox: Sandbox) -> None:
    answer = await sandbox.python("input()")
    assert answer.exit_code == 1
    assert answer.stderr.endswith("EOFError: EOF when reading a line\n")


async def test_top_level_await(sandbox: Sandbox) -> None:
    answer = await sandbox.python("import asyncio\nawait asyncio.sleep(0)\nasync def f():\n    return 5\nawait f()")
    assert answer.result == "5"
    assert (await sandbox.python("asyncio.run(f())")).result == "5"


async def test_magics(sandbox: Sandbox) -> None:
    (sandbox.workspace / "data.txt").write_text("x")
    assert (await sandbox.python("!ls")).stdout == "data.txt\n"
    assert (await sandbox.python("names = !ls\nnames[0]")).result == "'data.txt'"
    script = await sandbox.python("%%bash\necho out\necho err >&2")
    assert (script.stdout, script.stderr) == ("out\n", "err\n")
    assert "per loop" in (await sandbox.python("%timeit -n1 -r1 pass")).stdout
    await sandbox.python("%cd /tmp")
    assert (await sandbox.python("import os; os.getcwd()")).result == "'/tmp'"
    unknown = await sandbox.python("%nosuchmagic")
    assert unknown.exit_code == 1
    assert unknown.stderr.startswith("UsageError:")


async def test_a_fork_of_the_program_does_not_answer_twice(sandbox: Sandbox) -> None:
    answer = await sandbox.python("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('x', flush=True)")
    assert answer.stdout == "x\nx\n"
    assert (await sandbox.python("print('next')")).stdout == "next\n"


async def test_status_of_own_children_is_left_to_the_program(sandbox: Sandbox) -> None:
    await sandbox.python("import subprocess\nchild = subprocess.Popen(['bash', '-c', 'exit 7'])")
    await sandbox.python(
        "import os, time\nwhile not open(f'/proc/{child.pid}/stat').read().split(')')[1][1] == 'Z': pass"
    )
    await sandbox.python("pass")
    assert (await sandbox.python("child.wait()")).result == "7"


async def test_main_module_is_the_users(sandbox: Sandbox) -> None:
    code = "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A())).__class__ is A, __name__"
    assert (await sandbox.python(code)).result == "(True, '__main__')"


async def test_interpreters_of_two_sandboxes_have_their_own_random_numbers(sandbox: Sandbox) -> None:
    first = await sandbox.python("import random; random.random()")
    await sandbox.python("import os; os._exit(0)")
    second = await sandbox.python("import random; random.random()")
    assert first.result != second.result


async def test_code_with_every_kind_of_odd_character(sandbox: Sandbox) -> None:
    answer = await sandbox.python("print('\\ud800')\n'\\ud800\\x00'")
    assert answer.exit_code == 0
    assert (answer.result or "").startswith("'\\ud800")
    answer.stdout.encode()


async def test_orphans_are_reaped_by_the_interpreter(sandbox: Sandbox) -> None:
    await sandbox.python("import os; os.system('true & echo $! > pid');")
    pid = await sandbox.started_by("pid")
    await sandbox.until(lambda: not sandbox.lives(pid))
    await sandbox.python("pass")
    assert not os.path.exists(f"/proc/{pid}")


async def test_future_imports_stay(sandbox: Sandbox) -> None:
    await sandbox.python("from __future__ import annotations")
    assert (await sandbox.python("def f(x: nothing): pass\nf.__annotations__")).result == "{'x': 'nothing'}"


async def test_extensions_see_every_cell(sandbox: Sandbox) -> None:
    code = "seen = []\nget_ipython().events.register('pre_run_cell', lambda info: seen.append(info.raw_cell))"
    await sandbox.python(code)
    assert (await sandbox.python("seen")).result == "['seen']"
