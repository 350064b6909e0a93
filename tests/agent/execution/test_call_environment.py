"""Variables and working directory of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cove.agent.execution.environment import SandboxEnvironment
from cove.models.errors import InvalidRequest

if TYPE_CHECKING:
    from tests.agent.execution.conftest import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60, method="signal")]


SHOW = {
    "python": "import os; print(os.environ.get('WHO'))",
    "bash": "echo ${WHO-None}",
    "javascript": "console.log(process.env.WHO ?? 'None')",
}


@pytest.mark.parametrize("language", SHOW)
async def test_precedence(sandbox: Sandbox, language: str) -> None:
    async def who(**options: dict[str, str]) -> str:
        return (await sandbox.run(language, SHOW[language], **options)).stdout.strip()

    assert await who() == "None"
    sandbox.environment.merge({"WHO": "sandbox"})
    assert await who() == "sandbox"
    assert await who(env={"WHO": "request"}) == "request"
    assert await who() == "sandbox"
    sandbox.environment.clear()
    assert await who(env={"WHO": "request"}) == "request"
    assert await who() == "None"


async def test_the_programs_own_variables_persist(sandbox: Sandbox) -> None:
    await sandbox.python("import os; os.environ['OWN'] = '1'; os.environ['BOTH'] = 'own'", env={"BOTH": "request"})
    sandbox.environment.merge({"OTHER": "2"})
    answer = await sandbox.python("print(os.environ['OWN'], os.environ['BOTH'], os.environ['OTHER'])")
    assert answer.stdout == "1 own 2\n"


async def test_nothing_of_the_agents_environment_is_visible(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")
    await sandbox.python("import os; os._exit(0)")
    for language, code in (("python", "import os; print(*os.environ)"), ("bash", "env"), ("javascript", "process.env")):
        assert "SECRET_OF_THE_HOST" not in (await sandbox.run(language, code)).stdout


async def test_working_directory_of_one_call(sandbox: Sandbox) -> None:
    folder = sandbox.workspace / "other"
    folder.mkdir()
    for language, code in (("python", "import os; print(os.getcwd())"), ("javascript", "console.log(process.cwd())")):
        assert (await sandbox.run(language, code, workdir=str(folder))).stdout == f"{folder}\n"
        assert (await sandbox.run(language, code)).stdout == f"{sandbox.workspace}\n"
    assert (await sandbox.run("bash", "pwd", workdir="other")).stdout == f"{folder}\n"
    assert (await sandbox.run("bash", "pwd")).stdout == f"{sandbox.workspace}\n"
    assert (await sandbox.command("pwd", workdir=str(folder))).stdout == f"{folder}\n"


@pytest.mark.parametrize("workdir", ["/nonexistent", "a" * 4000, "/etc/passwd"])
async def test_working_directory_that_does_not_exist(sandbox: Sandbox, workdir: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await sandbox.python("1", workdir=workdir)
    assert caught.value.code == "INVALID_PATH"
    assert caught.value.remedy


async def test_removed_working_directory(sandbox: Sandbox) -> None:
    await sandbox.python("import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')")
    assert (await sandbox.python("print('fine')", workdir=str(sandbox.workspace))).stdout == "fine\n"


def test_environment_refuses_what_execve_cannot_pass() -> None:
    environment = SandboxEnvironment({"A": "base"}, {"B": "1"})
    for bad in ({"X=Y": "1"}, {"X": "a\0b"}, {"": "1"}, {"X\n": "1"}):
        with pytest.raises(ValueError, match=r"name|NUL"):
            environment.merge(bad)
    assert environment.get() == {"B": "1"}
    assert environment.effective({"A": "request"}) == {"A": "request", "B": "1"}
