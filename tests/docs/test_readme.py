"""What README.md, `docs` and `examples` show is run against a real server."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.documents import ROOT, Block, blocks
from tests.e2e.running_server import clean_environment, data_directory, running_server

PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("api.md", "compatibility.md", "mcp.md", "networks.md")),
)
SHELL = [block for page in PAGES for block in blocks(page, "sh") if not block.why_not_run]
PYTHON = [block for page in PAGES for block in blocks(page, "python") if not block.why_not_run]
RUN_SECONDS = 150

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def environment(built_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a reader's shell knows after `cove serve` and `cove keys create`."""
    options = ("--allow-webhook", "127.0.0.0/8")
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, *options) as server:
        yield clean_environment(
            COVE_BASE_URL=server.url,
            COVE_API_KEY=server.new_key("reader"),
            COVE_DATA_DIR=str(data_dir),
            # `cove mcp install` writes into files below it.
            HOME=str(tmp_path_factory.mktemp("home")),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A working directory as the reader has it."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def test_there_is_something_to_run() -> None:
    assert len(SHELL) >= 5
    assert len(PYTHON) >= 5


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_print_what_their_comments_say(block: Block, environment: dict[str, str], clone: Path) -> None:
    # Within one block the lines share a shell, as they do for the reader.
    script, expected = ["set -u"], list[list[str]]()
    for line in block.text.splitlines():
        command, _, comment = line.partition("  # ")
        script += [command, "echo '--- next'"]
        expected.append([comment.strip()] if comment else [])
    printed = _run(["bash", "-c", "\n".join(script)], environment, clone).split("--- next\n")
    assert printed.pop() == ""
    for comments, output in zip(expected, printed, strict=True):
        for comment in comments:
            assert _says(output, comment), f"{block}: {comment!r} is not what was printed: {output!r}"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_programs_print_what_their_comments_say(block: Block, environment: dict[str, str], clone: Path) -> None:
    printed = _run([sys.executable, "-c", block.text], environment, clone)
    for line in block.text.splitlines():
        if line.strip().startswith("print(") and "  # " in line and "; " not in line.partition("  # ")[2]:
            comment = line.partition("  # ")[2].removesuffix(" ...")
            # A print of several lines is one comment of words.
            assert comment.split() == _subsequence(comment.split(), printed.split()), f"{block}: {comment}"


def test_example_many_at_once(environment: dict[str, str], clone: Path) -> None:
    lines = [line.split(maxsplit=1) for line in _run_example("many_at_once.py", environment, clone).splitlines()]
    assert dict(lines) == {"recursive": "passed", "iterative": "passed", "wrong": "failed", "endless": "too slow"}


def test_example_report(environment: dict[str, str], clone: Path) -> None:
    assert "6 months, 4 regions" in _run_example("report.py", environment, clone)
    assert (clone / "monthly.png").read_bytes().startswith(b"\x89PNG")
    assert (clone / "monthly.xlsx").read_bytes().startswith(b"PK")


def test_example_background(environment: dict[str, str], clone: Path) -> None:
    printed = _run_example("background.py", environment, clone, "results").splitlines()
    assert printed[0].endswith(": 42")
    assert [line.split(":")[0].strip() for line in printed[1:4]] == ["epoch 1", "epoch 2", "epoch 3"]
    assert printed[4].startswith("ended with 0 ")
    assert {path.name for path in (clone / "results").iterdir()} == {f"epoch-{epoch}.json" for epoch in (1, 2, 3)}


def test_example_network(environment: dict[str, str], clone: Path) -> None:
    printed = _run_example("network.py", environment, clone, "allowed.invalid")
    assert re.search(r"^http +10\.0\.0\.1:80 +refused: no rule allows it$", printed, re.M)
    assert re.search(r"^dns +other\.allowed\.invalid:0 +refused: no rule allows it$", printed, re.M)


def test_every_example_is_run_somewhere() -> None:
    """`demo.py` is what `make demo` runs, and too slow for a test."""
    prefix = "test_example_"
    run = {name.removeprefix(prefix) for name in globals() if name.startswith(prefix)}
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*run, "demo"}


def _says(output: str, comment: str) -> bool:
    """Whether a line is the comment; with dots in it, whether its words occur."""
    if "..." in comment:
        return comment.replace("...", "").strip() in output
    return comment in (line.strip() for line in output.splitlines())


def _subsequence(wanted: list[str], words: list[str]) -> list[str]:
    """The first place where `wanted` occurs in `words`, or []."""
    for start in range(len(words)):
        if words[start : start + len(wanted)] == wanted:
            return words[start : start + len(wanted)]
    return []


def _run_example(name: str, environment: dict[str, str], directory: Path, *arguments: str) -> str:
    return _run([sys.executable, f"examples/{name}", *arguments], environment, directory)


def _run(command: list[str], environment: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
