"""Background programs, through the unmodified synchronous and asynchronous `hopx_ai` clients."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.interop import hopx

errors = hopx.errors

FOREVER = "import time\nwhile True: time.sleep(60)"
WAIT_SECONDS = 20.0


@pytest.fixture
def nothing_left(sandbox: Any) -> Iterator[None]:
    """The sandbox is shared by the tests of this module: what they started is ended."""
    yield
    for entry in sandbox.list_processes():
        sandbox.kill_process(entry["process_id"])


@pytest.fixture
async def async_sandbox(async_sandbox: Any) -> AsyncIterator[Any]:
    """With its connections closed at the end, which the client itself does not do."""
    yield async_sandbox
    await async_sandbox.kill()
    await async_sandbox._agent_client.close()
    await async_sandbox._client.close()


def listed(sandbox: Any, process_id: str) -> dict[str, Any]:
    return next(entry for entry in sandbox.list_processes() if entry["process_id"] == process_id)


def until_ended(sandbox: Any, process_id: str) -> dict[str, Any]:
    return _until(lambda: listed(sandbox, process_id), lambda entry: entry["status"] != "running")


def _until(get: Callable[[], dict[str, Any]], over: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_SECONDS
    while not over(entry := get()):
        assert time.monotonic() < deadline, "the program did not end in time"
    return entry


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "import os\nprint(os.environ['A'], 6 * 7)"),
        ("javascript", "setTimeout(() => console.log(process.env.A, 6 * 7), 50)"),
        ("bash", "sleep 0.05; echo $A $((6 * 7))"),
        ("go", 'fmt.Println(os.Getenv("A"), 6 * 7)'),
    ],
)
def test_code_runs(sandbox: Any, language: str, code: str) -> None:
    started = sandbox.run_code_background(code, language=language, env={"A": "set"}, name="job", timeout=60)
    assert re.fullmatch(r"proc_[0-9a-f]+", started["process_id"])
    assert (started["status"], started["name"]) == ("running", "job")
    entry = until_ended(sandbox, started["process_id"])
    assert (entry["status"], entry["exit_code"], entry["stdout"]) == ("completed", 0, "set 42\n")
    assert (entry["name"], entry["language"], entry["execution_id"]) == ("job", language, started["execution_id"])
    assert entry["duration"] > 0


@pytest.mark.usefixtures("nothing_left")
def test_a_program_is_killed(sandbox: Any) -> None:
    started = sandbox.run_code_background(FOREVER)
    answer = sandbox.kill_process(started["process_id"])
    assert (answer["success"], answer["process_id"]) == (True, started["process_id"])
    assert listed(sandbox, started["process_id"])["status"] == "killed"
    assert sandbox.kill_process(started["process_id"])["success"] is True


def test_an_unknown_program(sandbox: Any) -> None:
    with pytest.raises(errors.AgentError) as refused:
        sandbox.kill_process("proc_nothing")
    assert refused.value.code == "PROCESS_NOT_FOUND"


@pytest.mark.usefixtures("nothing_left")
def test_the_kernel_is_not_disturbed(sandbox: Any) -> None:
    sandbox.run_code("kept = 1")
    started = sandbox.run_code_background("kept = 2\nwhile True: pass", timeout=60)
    began = time.monotonic()
    assert sandbox.run_code("print(kept)").stdout == "1\n"
    assert time.monotonic() - began < 5
    assert listed(sandbox, started["process_id"])["status"] == "running"


@pytest.mark.usefixtures("nothing_left")
def test_the_timeout_ends_it(sandbox: Any) -> None:
    started = sandbox.run_code_background("import subprocess; subprocess.run(['sleep', '77'])", timeout=1)
    entry = until_ended(sandbox, started["process_id"])
    assert (entry["status"], entry["exit_code"], entry["timed_out"]) == ("failed", 124, True)
    assert "sleep 77" not in {found["command"] for found in sandbox.list_system_processes()}


@pytest.mark.usefixtures("nothing_left")
def test_a_command(sandbox: Any) -> None:
    result = sandbox.commands.run("echo $A; exit 3", background=True, env={"A": "set"})
    found = re.fullmatch(r"Background process started: (cmd_[0-9a-f]+)", result.stdout)
    assert found is not None
    assert result.exit_code == 0
    entry = until_ended(sandbox, found[1])
    assert (entry["status"], entry["exit_code"], entry["stdout"]) == ("failed", 3, "set\n")


@pytest.mark.usefixtures("nothing_left")
def test_a_refused_start_is_an_error_of_the_client(sandbox: Any) -> None:
    with pytest.raises(errors.AgentError) as refused:
        sandbox.run_code_background("1", language="cobol")
    assert refused.value.code == "UNSUPPORTED_LANGUAGE"


@pytest.mark.anyio
async def test_the_asynchronous_client(async_sandbox: Any) -> None:
    """It lists by `/processes` and kills by `/processes/{id}/kill`."""
    started = await async_sandbox.run_code_background(FOREVER, name="job", env={"A": "1"})
    command = await async_sandbox.commands.run("sleep 60", background=True)
    by_id = {entry["process_id"]: entry for entry in await _mine(async_sandbox)}
    assert set(by_id) == {started["process_id"], command.stdout.removeprefix("Background process started: ")}
    assert by_id[started["process_id"]]["status"] == "running"
    assert by_id[started["process_id"]]["background_name"] == "job"
    for process_id in by_id:
        answer = await async_sandbox.kill_process(process_id)
        assert (answer["success"], answer["process_id"]) == (True, process_id)
    assert await _mine(async_sandbox) == []
    # This client tells no code of an agent's error.
    with pytest.raises(errors.AgentError, match="404"):
        await async_sandbox.kill_process("proc_nothing")
    with pytest.raises(errors.AgentError, match="400"):
        await async_sandbox.run_code_background("1", language="cobol")


@pytest.mark.anyio
async def test_many_at_once(async_sandbox: Any) -> None:
    """The answers come within the ten seconds that the clients wait."""
    # The client makes one connection pool for each of the first calls that run at a time.
    assert await _mine(async_sandbox) == []
    began = time.monotonic()
    started = await asyncio.gather(
        *(async_sandbox.run_code_background(f"print({number})\n{FOREVER}") for number in range(12))
    )
    assert time.monotonic() - began < 10
    assert len({one["process_id"] for one in started}) == 12
    assert len(await _mine(async_sandbox)) == 12
    assert (await async_sandbox.run_code("print(1)")).stdout == "1\n"


async def _mine(sandbox: Any) -> list[dict[str, Any]]:
    return [entry for entry in await sandbox.list_processes() if "process_id" in entry]
