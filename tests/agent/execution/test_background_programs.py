"""Programs in the background: independent of everything else, ended for certain, bounded."""

import os
import signal
import time
from typing import Any

import anyio
import pytest
from tests.agent.execution.conftest import DAEMON, Sandbox

from cove.agent.execution import background
from cove.models.errors import CoveError
from cove.models.processes import BackgroundCommand, BackgroundExecute, BackgroundProcess, ProcessStatus

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]

SHELL_DAEMON = "setsid bash -c 'trap \"\" TERM INT; echo $$ > t; mv t daemon.pid; while :; do sleep 1; done' & sleep 60"


async def start(sandbox: Sandbox, code: str, language: str = "python", **fields: Any) -> str:
    request = BackgroundExecute.model_validate({"code": code, "language": language, "timeout": 30.0} | fields)
    with anyio.fail_after(10):
        return (await sandbox.executor.background.start_code(request)).process_id


async def ended(sandbox: Sandbox, process_id: str) -> BackgroundProcess:
    program = sandbox.executor.background.find(process_id)
    await program.wait_ended(20)
    found = program.describe(detailed=True)
    assert found.status is not ProcessStatus.RUNNING
    return found


async def run(sandbox: Sandbox, code: str, language: str = "python", **fields: Any) -> BackgroundProcess:
    return await ended(sandbox, await start(sandbox, code, language, **fields))


@pytest.mark.parametrize(
    ("language", "code", "stdout"),
    [
        ("python", "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7", "out\n42\n"),
        ("javascript", "console.log('out'); console.error('err')", "out\n"),
        ("bash", "echo out; echo err >&2", "out\n"),
    ],
)
async def test_languages(sandbox: Sandbox, language: str, code: str, stdout: str) -> None:
    found = await run(sandbox, code, language, name="mine")
    assert (found.status, found.exit_code, found.name, found.language) == ("completed", 0, "mine", language)
    assert found.result is not None
    assert (found.result.stdout, found.result.stderr) == (stdout, "err\n")
    assert (found.stdout, found.stderr) == (stdout, "err\n")
    assert found.process_id.startswith("proc_")
    assert found.execution_id == found.result.execution_id
    assert found.start_time < (found.end_time or "")
    assert found.pid > 1


@pytest.mark.parametrize(
    ("language", "code", "exit_code"),
    [
        ("python", "import sys; sys.exit(3)", 3),
        ("python", "1/0", 1),
        ("python", "import os; os._exit(4)", 4),
        ("python", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139),
        ("javascript", "process.exit(5)", 5),
        ("javascript", "setTimeout(() => { throw new Error('late') }, 10)", 1),
        ("javascript", "await new Promise(() => {})", 13),
        ("bash", "exit 6", 6),
    ],
)
async def test_exit_codes(sandbox: Sandbox, language: str, code: str, exit_code: int) -> None:
    found = await run(sandbox, code, language)
    assert (found.status, found.exit_code) == ("failed", exit_code)
    assert found.result is not None
    assert "interpreter" not in found.result.stderr
    assert found.signal == (11 if exit_code == 139 else None)


async def test_python_lasts_as_long_as_a_script(sandbox: Sandbox) -> None:
    """Threads are waited for, executors are told to finish, and what was registered runs at the end."""
    code = """
import atexit, threading, time
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor()
pool.submit(lambda: (time.sleep(0.1), print('pool')))
def later():
    time.sleep(0.3)
    print('thread')
threading.Thread(target=later).start()
threading.Thread(target=lambda: time.sleep(60), daemon=True).start()
_ = atexit.register(print, 'bye')
print('main')
"""
    found = await run(sandbox, code)
    assert found.stdout == "main\npool\nthread\nbye\n"
    assert found.exit_code == 0


async def test_javascript_lasts_as_long_as_a_script(sandbox: Sandbox) -> None:
    code = """
const server = require('http').createServer((_, answer) => answer.end('hi')).listen(0, async () => {
  const text = await (await fetch(`http://127.0.0.1:${server.address().port}`)).text();
  setTimeout(() => { console.log(text); server.close(); server.closeAllConnections(); }, 100);
});
console.log('main');
"""
    found = await run(sandbox, code, "javascript")
    assert (found.stdout, found.exit_code) == ("main\nhi\n", 0)


async def test_nothing_is_shared_with_the_kernel(sandbox: Sandbox) -> None:
    await sandbox.python("shared = 1")
    found = await run(
        sandbox, "import os\nprint('shared' in dir(), os.environ['MINE'], os.getcwd())", env={"MINE": "2"}
    )
    assert found.stdout == f"False 2 {sandbox.workspace}\n"
    await run(sandbox, "other = 1")
    assert (await sandbox.python("'other' in dir(), shared")).result == "(False, 1)"


async def test_execute_is_not_delayed(sandbox: Sandbox) -> None:
    busy = [await start(sandbox, "while True: pass") for _ in range(2)]
    assert not sandbox.executor.python_busy
    began = time.monotonic()
    assert (await sandbox.python("1 + 1")).result == "2"
    assert time.monotonic() - began < 2
    for process_id in busy:
        await sandbox.executor.background.kill(process_id, None)
        assert (await ended(sandbox, process_id)).status == "killed"
    assert (await sandbox.python("1 + 1")).result == "2"


async def test_what_is_displayed_is_in_the_result(sandbox: Sandbox) -> None:
    found = await run(sandbox, "from IPython.display import HTML, display\ndisplay(HTML('<b>hi</b>'))")
    assert found.result is not None
    assert found.result.html == "<b>hi</b>"


@pytest.mark.parametrize(("language", "code"), [("python", DAEMON), ("bash", SHELL_DAEMON)])
@pytest.mark.parametrize("how", ["kill", "timeout", "close"])
async def test_the_whole_tree_ends(sandbox: Sandbox, language: str, code: str, how: str) -> None:
    """Double forks, other sessions and ignored signals included."""
    code = code if language == "bash" else code + "\nwhile True: time.sleep(60)"
    process_id = await start(sandbox, code, language, timeout=1.5 if how == "timeout" else 30.0)
    daemon = await sandbox.started_by("daemon.pid")
    root = sandbox.executor.background.find(process_id).describe().pid
    assert sandbox.lives(daemon)
    began = time.monotonic()
    if how == "kill":
        _, message = await sandbox.executor.background.kill(process_id, None)
        assert message.endswith("was ended")
    elif how == "close":
        await sandbox.executor.background.close()
    await sandbox.until(lambda: not sandbox.lives(daemon) and not sandbox.lives(root))
    assert time.monotonic() - began < 3.5
    found = await ended(sandbox, process_id)
    assert found.timed_out is (how == "timeout")
    if how == "timeout":
        assert (found.status, found.exit_code, found.signal) == ("failed", 124, None)
        assert found.stderr.endswith("timeout: ended after 1.5 s\n")
    else:
        assert found.status == ("killed" if how == "kill" else "failed")


async def test_a_program_that_ends_normally_may_leave_others(sandbox: Sandbox) -> None:
    """`server &` in the background works as it does anywhere, from Python too."""
    for number, (language, code) in enumerate(
        [
            ("bash", "sleep 60 & echo $! > shell.tmp; mv shell.tmp shell.pid"),
            ("python", "import subprocess\nopen('py.pid', 'w').write(str(subprocess.Popen(['sleep', '60']).pid))"),
        ]
    ):
        found = await run(sandbox, code, language)
        assert found.exit_code == 0
        assert sandbox.lives(await sandbox.started_by(("shell.pid", "py.pid")[number]))


@pytest.mark.parametrize(
    ("named", "number"), [("SIGTERM", 15), ("usr1", 10), (2, 2), ("9", 9), ("KILL", 9), ("SIGHUP", 1)]
)
@pytest.mark.parametrize("language", ["bash", "python"])
async def test_signals(sandbox: Sandbox, language: str, named: str | int, number: int) -> None:
    code = {
        # No program makes the file: Bash goes on after an interrupt that a program has outlived.
        "bash": ": > up; sleep 60; echo",
        "python": "import os, time\nos.mkfifo('up')\nwhile True: time.sleep(60)",
    }
    process_id = await start(sandbox, code[language], language)
    await sandbox.until(lambda: (sandbox.workspace / "up").exists())
    await sandbox.executor.background.kill(process_id, named)
    found = await ended(sandbox, process_id)
    assert (found.status, found.exit_code, found.signal) == ("killed", 128 + number, number)


async def test_a_signal_that_is_handled(sandbox: Sandbox) -> None:
    process_id = await start(sandbox, "trap 'echo got; exit 7' USR1; touch up; while :; do sleep 0.01; done", "bash")
    await sandbox.until(lambda: (sandbox.workspace / "up").exists())
    _, message = await sandbox.executor.background.kill(process_id, "USR1")
    assert message == f"signal {signal.SIGUSR1.value} was sent to {process_id}"
    found = await ended(sandbox, process_id)
    assert (found.status, found.exit_code, found.stdout) == ("failed", 7, "got\n")


@pytest.mark.parametrize("nonsense", [0, -1, 65, 10**9, "", "SIGNONSENSE", "9 ", "\u0669", "999", "__members__"])
async def test_nonsense_is_no_signal(sandbox: Sandbox, nonsense: str | int) -> None:
    process_id = await start(sandbox, "sleep 60", "bash")
    with pytest.raises(CoveError) as refused:
        await sandbox.executor.background.kill(process_id, nonsense)
    assert refused.value.code == "INVALID_REQUEST"
    assert sandbox.executor.background.find(process_id).running


async def test_killing_twice(sandbox: Sandbox) -> None:
    process_id = await start(sandbox, "sleep 60", "bash")
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(sandbox.executor.background.kill, process_id, None)
    assert (await ended(sandbox, process_id)).status == "killed"
    _, message = await sandbox.executor.background.kill(process_id, None)
    assert message.endswith("has already ended")


async def test_commands(sandbox: Sandbox) -> None:
    shell = BackgroundCommand(command="echo a b; exit 3", name="n")
    direct = BackgroundCommand(command="printf", args=("%s|", "a b", "c"))
    for request, stdout, exit_code, line in (
        (shell, "a b\n", 3, "echo a b; exit 3"),
        (direct, "a b|c|", 0, "printf '%s|' 'a b' c"),
    ):
        started = await sandbox.executor.background.start_command(request)
        assert started.process_id.startswith("cmd_")
        found = await ended(sandbox, started.process_id)
        assert (found.stdout, found.exit_code, found.command) == (stdout, exit_code, line)


async def test_refusals_start_nothing(sandbox: Sandbox) -> None:
    for fields, code in (
        ({"language": "cobol"}, "UNSUPPORTED_LANGUAGE"),
        ({"workdir": "/nowhere/at/all", "language": "bash"}, "INVALID_PATH"),
        ({"workdir": "/nowhere/at/all"}, "INVALID_PATH"),
        ({"code": "a\0b"}, "INVALID_REQUEST"),
        ({"code": "x" * (4 * 1024 * 1024 + 1)}, "REQUEST_TOO_LARGE"),
    ):
        with pytest.raises(CoveError) as refused:
            await start(sandbox, **({"code": "1"} | fields))
        assert refused.value.code == code
    await sandbox.until(lambda: not list(sandbox.executor.background))


async def test_one_execution_id_runs_once(sandbox: Sandbox) -> None:
    request = BackgroundExecute(
        code="echo x >> runs; sleep 60", language="bash", execution_id="exec_0123456789abcdef", timeout=30
    )
    found: list[str] = []

    async def repeat() -> None:
        found.append((await sandbox.executor.background.start_code(request)).process_id)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(repeat)
    assert len(set(found)) == 1
    runs = sandbox.workspace / "runs"
    await sandbox.until(lambda: runs.exists() and runs.read_text() == "x\n")
    await sandbox.executor.background.kill("exec_0123456789abcdef", None)
    again = await sandbox.executor.background.start_code(request)
    assert (again.process_id, again.status) == (found[0], "killed")
    assert runs.read_text() == "x\n"


async def test_an_execution_that_was_forgotten_does_not_run_again(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MAX_KEPT", 1)
    first = await run(sandbox, "echo x >> runs", "bash", execution_id="exec_0123456789abcdef")
    await run(sandbox, "true", "bash")
    with pytest.raises(CoveError) as gone:
        sandbox.executor.background.find(first.process_id)
    assert gone.value.code == "PROCESS_NOT_FOUND"
    with pytest.raises(CoveError) as refused:
        await start(sandbox, "echo x >> runs", "bash", execution_id="exec_0123456789abcdef")
    assert refused.value.code == "CONFLICT"
    assert (sandbox.workspace / "runs").read_text() == "x\n"


async def test_as_many_as_may_run(sandbox: Sandbox) -> None:
    assert background.MAX_RUNNING == 64
    ids = [await start(sandbox, "sleep 60", "bash") for _ in range(64)]
    with pytest.raises(CoveError) as refused:
        await start(sandbox, "sleep 60", "bash")
    assert refused.value.code == "RESOURCE_LIMIT_EXCEEDED"
    assert "/execute/kill" in refused.value.remedy
    await sandbox.executor.background.kill(ids[0], None)
    await start(sandbox, "sleep 60", "bash")
    pids = [program.describe().pid for program in sandbox.executor.background if program.running]
    assert len(pids) == 64
    with anyio.fail_after(10):
        await sandbox.executor.background.close()
    assert not any(map(sandbox.lives, pids))


async def test_the_oldest_that_have_ended_are_dropped(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MAX_KEPT", 3)
    running = await start(sandbox, "sleep 60", "bash")
    ids = [(await run(sandbox, "echo", "bash")).process_id for _ in range(5)]
    await sandbox.until(lambda: len(list(sandbox.executor.background)) == 3)
    kept = [program.describe().process_id for program in sandbox.executor.background]
    assert kept == [running, *ids[-2:]]


async def test_what_has_ended_long_ago_is_dropped_without_any_request(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "KEPT_SECONDS", 0.2)
    await run(sandbox, "echo", "bash")
    await sandbox.until(lambda: not list(sandbox.executor.background), seconds=3)


async def test_all_together_keep_a_bounded_amount(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one's output goes to its file, and nothing of it is lost; later the first one's memory is freed."""
    monkeypatch.setattr(background, "KEPT_BYTES", 100_000)
    flood = "head -c 90000 /dev/zero | tr '\\0' x"
    first, second = await run(sandbox, flood, "bash"), await run(sandbox, flood, "bash")
    assert first.result is not None
    assert second.result is not None
    assert (first.result.stdout_truncated, second.result.stdout_truncated) == (False, True)
    logs = await sandbox.executor.background.find(second.process_id).read("stdout", 0, wait=0)
    rest = await sandbox.executor.background.find(second.process_id).read("stdout", logs.next_offset, wait=0)
    assert logs.text + rest.text == "x" * 90000
    assert rest.complete
    monkeypatch.setattr(background, "SAFE_SECONDS", 0.0)
    third = await run(sandbox, flood, "bash")
    assert third.result is not None
    assert not third.result.stdout_truncated


async def test_waiting_ends_at_once(sandbox: Sandbox) -> None:
    """Who waits hears of new output and of the end within milliseconds."""
    gate = sandbox.workspace / "gate"
    os.mkfifo(gate)
    code = "exec 3<>gate; echo ready; while read line <&3; do echo $line; [ $line = end ] && exit; done"
    program = sandbox.executor.background.find(await start(sandbox, code, "bash"))
    part = await program.read("stdout", 0, wait=20)
    assert part.text == "ready\n"
    for line in ("first", "end"):
        # The shell has the pipe open: this does not wait.
        began = time.monotonic()
        gate.write_text(f"{line}\n")
        part = await program.read("stdout", part.next_offset, wait=20)
        assert part.text == f"{line}\n"
        assert time.monotonic() - began < 0.25
    await program.wait_ended(20)
    assert time.monotonic() - began < 0.5
    assert not program.running


async def test_a_flood_is_read_as_it_comes_and_after(sandbox: Sandbox) -> None:
    """Twice over the limit, in characters of three bytes."""
    code = "import sys\nfor n in range(2000): sys.stdout.write('\\u2603' * 100 + '\\n')"
    process_id = await start(sandbox, code, max_output_bytes=100_001)
    program = sandbox.executor.background.find(process_id)
    text, offset, complete = "", 0, False
    with anyio.fail_after(20):
        while not complete:
            part = await program.read("stdout", offset, wait=10)
            assert part.offset == offset
            text, offset, complete = text + part.text, part.next_offset, part.complete
    assert text == ("\N{SNOWMAN}" * 100 + "\n") * 2000
    result = (await ended(sandbox, process_id)).result
    assert result is not None
    assert result.stdout_truncated
    assert result.stdout_file is not None
    assert "\ufffd" not in result.stdout


async def test_counted_as_executions(sandbox: Sandbox) -> None:
    process_id = await start(sandbox, "sleep 60", "bash")
    counters = sandbox.executor.counters()
    assert (counters.active, counters.total) == (1, 1)
    await sandbox.executor.background.kill(process_id, None)
    await sandbox.until(lambda: sandbox.executor.counters().active == 0)
    assert sandbox.executor.counters().errors == 1
    assert "bash" in sandbox.executor.counters().average_ms
