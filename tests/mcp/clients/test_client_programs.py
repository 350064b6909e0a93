"""What stands in the files really starts, in the environment that a desktop program gives it."""

import asyncio
import json
import os
import shutil
import sys
import tomllib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.running_server import data_directory

from cove.mcp.clients.entries import Wanted, addition
from cove.mcp.clients.programs import Program, is_passing, running_program, uvx_program
from cove.mcp.clients.snippets import snippet
from cove.mcp.clients.table import CLIENTS, Language
from cove.models.version import VERSION

pytestmark = pytest.mark.anyio
ANSWER_SECONDS = 30.0
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


async def test_the_program_in_every_file_serves(built_data_dir: Path, tmp_path: Path) -> None:
    with data_directory(built_data_dir) as data_dir:
        wanted = Wanted(program=running_program(), toolset="core", variables={"COVE_DATA_DIR": str(data_dir)})
        started: list[Any] = []
        for client in CLIENTS.values():
            text = snippet(client, addition(client, wanted))
            whole = tomllib.loads(text) if client.language is Language.TOML else json.loads(text)
            entry = whole[client.servers]["cove"]
            # Clients that say the same need no process each.
            if (words := (entry["command"], entry["args"], entry["env"])) not in started:
                await _expect_answers(entry, home=tmp_path)
                started.append(words)
        assert started


async def _expect_answers(entry: dict[str, Any], *, home: Path) -> None:
    async with _running(entry, home=home) as ask:
        server = await ask("initialize", INITIALIZE)
        assert server["serverInfo"]["version"] == VERSION
        names = [tool["name"] for tool in (await ask("tools/list", {}))["tools"]]
        assert "execute_code_isolated" in names
        program = {"name": "execute_code_isolated", "arguments": {"code": "print(6 * 7)"}}
        answer = await ask("tools/call", program)
        assert not answer.get("isError"), answer["content"]
        assert answer["structuredContent"]["stdout"] == "42\n"


@asynccontextmanager
async def _running(entry: dict[str, Any], *, home: Path) -> AsyncGenerator[Any]:
    """Start it as clients do (their `PATH` has no virtual environment); a function that asks it something."""
    process = await asyncio.create_subprocess_exec(
        entry["command"],
        *entry["args"],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
        cwd="/",
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **entry["env"]},
    )
    assert process.stdin
    assert process.stdout
    try:
        ids = iter(range(1, 100))

        async def ask(method: str, params: dict[str, Any]) -> dict[str, Any]:
            message = {"jsonrpc": "2.0", "id": next(ids), "method": method, "params": params}
            process.stdin.write(json.dumps(message).encode() + b"\n")  # pyright: ignore[reportOptionalMemberAccess]
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = json.loads(await process.stdout.readline())  # pyright: ignore[reportOptionalMemberAccess]
            assert answer["id"] == message["id"]
            return answer["result"]

        yield ask
        process.stdin.close()
        async with asyncio.timeout(ANSWER_SECONDS):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_links_to_the_program_are_kept(tmp_path: Path) -> None:
    link = tmp_path / "cove"
    link.symlink_to(Path(sys.executable).parent / "cove")
    assert running_program(str(link)) == Program(str(link))


def test_a_relative_name_becomes_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "cove"
    program.parent.mkdir()
    shutil.copy(Path(sys.executable).parent / "cove", program)
    monkeypatch.chdir(tmp_path)
    assert running_program("bin/cove") == Program(str(program))


@pytest.mark.parametrize("name", ["-c", "/usr/lib/python3/site-packages/cove/cli/main.py", "/nowhere/cove", ""])
def test_started_in_another_way_it_is_the_program_beside_python(name: str) -> None:
    assert running_program(name) == Program(str(Path(sys.executable).parent / "cove"))


def test_without_a_program_it_is_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert running_program("-c") == Program(str(tmp_path / "python"), ("-m", "cove.cli.main"))


def test_uvx_is_named_by_its_path_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert uvx_program().command == "uvx"
    uvx = tmp_path / "uvx"
    uvx.touch(mode=0o755)
    assert uvx_program().command == str(uvx)
    assert os.access(uvx, os.X_OK)


def test_environments_that_uvx_removes_are_known() -> None:
    assert is_passing(Program("/home/user/.cache/uv/archive-v0/AbC/bin/cove"))
    assert not is_passing(Program("/home/user/.local/bin/cove"))
