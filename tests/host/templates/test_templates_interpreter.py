import json
import sys
from pathlib import Path

import pytest

from cove.host.templates.interpreter import find_interpreter, probe


def test_found_interpreter_is_new_enough_and_real() -> None:
    found = find_interpreter()

    assert found.version >= (3, 11, 0)
    assert Path(found.executable).is_file()
    assert Path(found.stdlib, "os.py").is_file()
    assert found.command.endswith("/bin/python3")


def test_the_distributions_interpreter_keeps_its_paths() -> None:
    found = probe("/usr/bin/python3")
    if found is None:
        pytest.skip("the host has no /usr/bin/python3")

    assert found.inside(found.stdlib) == found.stdlib
    assert found.command == "/usr/bin/python3"


def test_another_interpreter_moves_to_usr_local() -> None:
    found = probe(str(Path(sys.base_prefix, "bin", "python3")), relocated=True)

    assert found is not None
    assert found.inside(found.executable).startswith("/usr/local/bin/python3")
    assert found.inside(found.stdlib).startswith("/usr/local/lib/python3.")
    assert found.command == "/usr/local/bin/python3"
    assert sys.base_prefix not in json.dumps(found.identity)


def test_what_does_not_answer_like_python_is_no_interpreter() -> None:
    assert probe("/bin/true") is None


def test_the_answer_is_kept_until_the_executable_changes(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    script = tmp_path / "python3"
    script.write_text(f'#!/bin/sh\necho x >> {tmp_path}/calls\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)

    first = probe(str(script), memory=memory)
    second = probe(str(script), memory=memory)
    assert first is not None
    assert first == second
    assert (tmp_path / "calls").read_text() == "x\n"

    script.write_text(script.read_text() + "# upgraded\n")
    probe(str(script), memory=memory)
    assert (tmp_path / "calls").read_text() == "x\nx\n"

    memory.write_text("{ damaged")
    assert probe(str(script), memory=memory) == first
