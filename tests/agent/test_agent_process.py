"""The agent as a process of its own: what is prepared before the fork, serving, and its end."""

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.agent.conftest import AgentProcess


def test_preparation_leaves_one_thread_and_no_descriptors(process: AgentProcess) -> None:
    assert process.prepared == "1 True"
    assert process.client.get("/health").json()["status"] == "healthy"
    assert process.end() == 0


def test_python_is_stateful_over_http(process: AgentProcess) -> None:
    process.execute("import json; value = 20")
    assert process.execute("print(value + 1); json.dumps(value)")["result"] == "'20'"
    metrics = process.client.get("/metrics/snapshot").json()
    assert metrics["total_executions"] == 2
    assert metrics["avg_duration_ms"]["python"] > 0


def test_variables_reach_programs(process: AgentProcess) -> None:
    process.client.patch("/env", json={"env_vars": {"ADDED": "2"}})
    seen = process.execute("echo $GLOBAL $ADDED $ONCE", language="bash", env={"ONCE": "3"})
    assert seen["stdout"] == "1 2 3\n"
    code = "import os; print(os.environ['GLOBAL'], os.environ['ADDED'], os.environ['ONCE'])"
    assert process.execute(code, env={"ONCE": "3"})["stdout"] == "1 2 3\n"


def test_a_timeout_is_an_answer(process: AgentProcess) -> None:
    began = time.monotonic()
    result = process.execute("print('begun', flush=True)\nwhile True: pass", timeout=0.5)
    assert time.monotonic() - began < 3
    assert (result["timed_out"], result["exit_code"], result["stdout"]) == (True, 124, "begun\n")


def test_files_and_programs_see_the_same_workspace(process: AgentProcess) -> None:
    process.client.post("/files/write", json={"path": "a b.txt", "content": "text"})
    assert process.execute("open('a b.txt').read()")["result"] == "'text'"


def test_processes_of_the_sandbox_are_listed(process: AgentProcess) -> None:
    process.execute("import subprocess; child = subprocess.Popen(['sleep', '1000'])")
    listed = process.client.get("/processes").json()["processes"]
    assert [entry for entry in listed if entry["command"] == "sleep 1000"]


def test_sigterm_ends_all_that_runs(process: AgentProcess) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)"
    background = int(process.execute(code)["stdout"])
    assert process.end() == 0
    assert not Path(f"/proc/{background}").exists() or _is_zombie(background)


def test_a_client_that_goes_ends_its_program(process: AgentProcess) -> None:
    marker = process.workspace / "pid"
    body = json.dumps({"language": "bash", "code": f"echo $$ > {marker}.part; mv {marker}.part {marker}; sleep 1000"})
    with pytest.raises(httpx2.ReadTimeout):
        process.client.post("/execute", content=body, timeout=0.5)
    until(marker.exists)
    pid = int(marker.read_text())
    until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
