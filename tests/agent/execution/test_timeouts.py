"""Timeouts and cancellation: the whole tree ends, the answer comes in time."""

import asyncio
import os
import time
from typing import Any

import anyio
import pytest
from tests.agent.execution.conftest import DAEMON, Sandbox

from cove.models.execution import ExecuteRequest, ExecutionResult

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]


TIMEOUT = 0.5
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"


async def timed(sandbox: Sandbox, language: str, code: str, **options: Any) -> ExecutionResult:
    began = time.monotonic()
    answer = await sandbox.run(language, code, **({"timeout": TIMEOUT} | options))
    assert time.monotonic() - began < TIMEOUT + 1
    assert answer.exit_code == 124
    assert answer.timed_out
    assert f"timeout: ended after {TIMEOUT:g} s" in answer.stderr
    return answer


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import subprocess; subprocess.run(['sleep', '60'])",
        "import os; os.system('sleep 60');",
        "!sleep 60",
        "import asyncio; await asyncio.sleep(60)",
        "import threading; threading.Event().wait()",
    ],
)
async def test_interrupted_python_keeps_its_state(sandbox: Sandbox, code: str) -> None:
    answer = await timed(sandbox, "python", f"kept = 5\nprint('so far')\n{code}")
    assert answer.stdout == "so far\n"
    assert not answer.kernel_restarted
    assert (await sandbox.python("kept")).result == "5"


async def test_python_that_ignores_interrupts_is_killed(sandbox: Sandbox) -> None:
    answer = await timed(sandbox, "python", f"print('so far')\n{DEAF}")
    assert answer.stdout == "so far\n"
    assert answer.kernel_restarted
    assert "variables and imports are gone" in answer.stderr
    assert (await sandbox.python("1 + 1")).result == "2"


async def test_blocked_signals_do_not_help(sandbox: Sandbox) -> None:
    code = "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\ntime.sleep(60)"
    assert (await timed(sandbox, "python", code)).kernel_restarted


@pytest.mark.parametrize("ending", ["time.sleep(60)", DEAF])
async def test_daemon_of_a_python_call_ends_with_it(sandbox: Sandbox, ending: str) -> None:
    wait = "while not os.path.exists('daemon.pid'): time.sleep(0.001)\n"
    await timed(sandbox, "python", DAEMON + wait + ending)
    pid = await sandbox.started_by("daemon.pid")
    await sandbox.until(lambda: not sandbox.lives(pid), 5.0)


async def test_background_of_an_earlier_call_outlives_a_timeout(sandbox: Sandbox) -> None:
    answer = await sandbox.python("import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nchild.pid")
    pid = int(answer.result or "0")
    await timed(sandbox, "python", "while True: pass")
    assert sandbox.lives(pid)
    await timed(sandbox, "python", DEAF)
    assert sandbox.lives(pid)


async def test_bash_tree_ends(sandbox: Sandbox) -> None:
    (sandbox.workspace / "daemon.py").write_text(DAEMON)
    code = "echo so far; python3 daemon.py; trap '' TERM; setsid sleep 60 & echo $! > sleeper; wait"
    answer = await timed(sandbox, "bash", code)
    assert answer.stdout == "so far\n"
    for file in ("daemon.pid", "sleeper"):
        pid = await sandbox.started_by(file)
        await sandbox.until(lambda pid=pid: not sandbox.lives(pid), 5.0)


async def test_daemon_of_a_root_that_obeys(sandbox: Sandbox) -> None:
    (sandbox.workspace / "daemon.py").write_text(DAEMON)
    await timed(sandbox, "bash", "python3 daemon.py; while [ ! -e daemon.pid ]; do :; done; exec sleep 60")
    pid = await sandbox.started_by("daemon.pid")
    await sandbox.until(lambda: not sandbox.lives(pid), 5.0)


async def test_bash_may_clean_up(sandbox: Sandbox) -> None:
    answer = await timed(sandbox, "bash", "trap 'echo cleaned; exit' TERM; sleep 60 & wait")
    assert answer.stdout == "cleaned\n"


async def test_fork_bomb_ends(sandbox: Sandbox) -> None:
    code = "f() { for i in 1 2 3; do [ $1 -gt 0 ] && f $(($1 - 1)) & done; wait; }; while :; do f 2; done"
    await timed(sandbox, "bash", code)
    assert (await sandbox.run("bash", "echo fine")).stdout == "fine\n"


async def test_command_times_out(sandbox: Sandbox) -> None:
    answer = await sandbox.command("sleep", args=("60",), timeout=TIMEOUT)
    assert (answer.exit_code, answer.timed_out) == (124, True)
    assert not sandbox.lives(answer.pid)


@pytest.mark.parametrize(
    "code", ["while (true) {}", "setInterval(() => {}, 10)", "await new Promise(r => setTimeout(r, 60000))"]
)
async def test_javascript_times_out(sandbox: Sandbox, code: str) -> None:
    await sandbox.javascript("1")
    answer = await timed(sandbox, "javascript", f"console.log('so far');\n{code}")
    assert answer.stdout == "so far\n"
    assert answer.kernel_restarted
    assert (await sandbox.javascript("1 + 1")).result == "2"


async def test_waiting_for_a_busy_interpreter_is_bounded(sandbox: Sandbox) -> None:
    answers: list[ExecutionResult] = []
    async with anyio.create_task_group() as group:
        group.start_soon(sandbox.python, "import time\nopen('busy', 'w').write('1')\ntime.sleep(1.5)")
        await sandbox.started_by("busy")
        answers.append(await sandbox.python("ran = True", timeout=0.2))
    answer = answers[0]
    assert (answer.exit_code, answer.timed_out, answer.kernel_restarted) == (124, True, False)
    assert "not started" in answer.stderr
    assert (await sandbox.python("'ran' in globals()")).result == "False"


@pytest.mark.parametrize("language", ["python", "bash", "javascript"])
async def test_cancelled_call_ends_its_program(sandbox: Sandbox, language: str) -> None:
    code = {
        "python": "import subprocess\nsubprocess.run(['bash', '-c', 'echo $$ > pid; sleep 60'])",
        "bash": "setsid --wait bash -c 'echo $$ > pid; sleep 60'",
        "javascript": "require('child_process').execSync('echo $$ > pid; sleep 60')",
    }[language]
    request = ExecuteRequest(code=code, language=language, timeout=30)
    task = asyncio.create_task(sandbox.executor.execute(request))
    pid = await sandbox.started_by("pid")
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    await sandbox.until(lambda: not sandbox.lives(pid), 2.0)
    assert (await sandbox.run(language, "1")).timed_out is False
    assert sandbox.executor.counters().active == 0


async def test_background_process_does_not_hold_the_answer(sandbox: Sandbox) -> None:
    began = time.monotonic()
    for language, code in (
        ("bash", "sleep 30 & echo $! > bash.pid"),
        ("python", "import subprocess\nopen('python.pid', 'w').write(str(subprocess.Popen(['sleep', '30']).pid));"),
    ):
        assert (await sandbox.run(language, code)).exit_code == 0
        assert sandbox.lives(await sandbox.started_by(f"{language}.pid"))
    assert time.monotonic() - began < 10
    # Orphans of an ended program are adopted, reaped, and ended with the executor.
    pid = await sandbox.started_by("bash.pid")
    os.kill(pid, 9)
    await sandbox.until(lambda: not os.path.exists(f"/proc/{pid}"))


async def test_close_leaves_nothing(sandbox: Sandbox) -> None:
    await sandbox.run("bash", "setsid sleep 60 & echo $! > left; (sleep 60 & echo $! > deeper)")
    await sandbox.javascript("1")
    pids = [await sandbox.started_by(name) for name in ("left", "deeper")]
    pids.append(int((await sandbox.python("import os; os.getpid()")).result or "0"))
    await sandbox.executor.close()
    for pid in pids:
        await sandbox.until(lambda pid=pid: not sandbox.lives(pid), 2.0)
