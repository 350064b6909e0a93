"""Variables of the sandbox reach its programs, running interpreters included, and nothing else."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import AgentProcess

POISON = {
    "LD_PRELOAD": "/nonexistent/evil.so",
    "LD_LIBRARY_PATH": "/nonexistent",
    "PYTHONPATH": "/nonexistent",
    "PYTHONSTARTUP": "/nonexistent/start.py",
    "NODE_OPTIONS": "--require /nonexistent/evil.js",
    "PATH": "/usr/bin:/bin",
}


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.timeout(60)
def test_variables_that_change_programs_change_no_part_of_the_agent(process: "AgentProcess") -> None:
    before = environment_of(process.pid)
    assert process.execute("print(1)")["stdout"] == "1\n"
    assert process.client.put("/env", json={"env_vars": POISON}).json()["env_vars"] == POISON
    seen = process.execute("import os; print(os.environ['LD_PRELOAD'], os.environ['NODE_OPTIONS'])")
    assert seen["stdout"] == "/nonexistent/evil.so --require /nonexistent/evil.js\n"
    command = process.client.post("/commands/run", json={"command": "echo $LD_PRELOAD; true"}).json()
    assert command["stdout"] == "/nonexistent/evil.so\n"
    # The dynamic loader of the user's program says that there is no such library; the agent's never gets to see it.
    assert "evil.so" in command["stderr"]
    assert environment_of(process.pid) == before
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "/nonexistent" not in maps
    assert process.client.delete("/env").json()["env_vars"] == {}
    assert process.execute("import os; print(os.environ.get('LD_PRELOAD'))")["stdout"] == "None\n"
    assert process.client.post("/commands/run", json={"command": "true"}).json()["stderr"] == ""
    assert process.client.get("/health").json()["status"] == "healthy"


@pytest.mark.timeout(60)
def test_deleting_one_variable_by_writing_back_the_others(process: "AgentProcess") -> None:
    process.client.patch("/env", json={"env_vars": {"KEY": "secret-value", "GONE": "1"}, "merge": True})
    show = "import os; print(os.environ.get('KEY'), os.environ.get('GONE'), os.environ.get('GLOBAL'))"
    assert process.execute(show)["stdout"] == "secret-value 1 1\n"
    held = process.client.get("/env").json()["env_vars"]
    del held["GONE"]
    process.client.put("/env", json={"env_vars": held})
    assert process.execute(show)["stdout"] == "secret-value None 1\n"
    assert process.execute(show, env={"KEY": "request", "GONE": "request"})["stdout"] == "request request 1\n"
    assert process.execute(show)["stdout"] == "secret-value None 1\n"
