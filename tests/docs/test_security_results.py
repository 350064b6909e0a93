"""docs/security-results.md has a row for every attack, and no other."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "generate_security_table.py"


@pytest.fixture
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("generate_security_table", TOOL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_attack_has_its_row_and_every_row_its_test(tool: Any) -> None:
    assert tool.problems() == []


def test_a_row_that_is_missing_or_strange_is_noticed(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tool.TABLE.read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if "`test_api.py::test_numbers`" in line)
    changed = tmp_path / "security-results.md"
    monkeypatch.setattr(tool, "TABLE", changed)
    for other, expected in (
        ("", "test_api.py::test_numbers has no row"),
        (row.replace("test_numbers", "test_gone"), "the row of test_api.py::test_gone has no test"),
        (row.replace("Numbers", "Letters"), "the row of test_api.py::test_numbers says something else"),
        (row.replace("| held |", "| FAILED |"), "failed"),
    ):
        changed.write_text(text.replace(row, other), encoding="utf-8")
        assert any(expected in problem for problem in tool.problems()), other
