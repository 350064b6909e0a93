"""`cove namespaces`, and limits of `cove keys`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cove.cli.app import app
from cove.models.errors import CoveError


def cove(data_dir: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--data-dir", str(data_dir)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_limits_are_set_kept_and_cleared(tmp_path: Path) -> None:
    cove(tmp_path, "keys", "create", "k", "--namespace", "red", "--quiet")
    cove(tmp_path, "namespaces", "limits", "red", "--max-sandboxes", "10", "--max-memory-mb", "512")
    row = json.loads(cove(tmp_path, "namespaces", "limits", "red", "--max-sandboxes", "0", "--json"))
    assert (row["namespace"], row["id"]) == ("red", 2)
    assert (row["max_sandboxes"], row["max_memory_mb"], row["max_vcpu"]) == (0, 512, None)
    assert json.loads(cove(tmp_path, "namespaces", "list", "--json"))[1] == row
    assert "512" in cove(tmp_path, "namespaces", "list")
    assert "not set" in cove(tmp_path, "namespaces", "limits", "red")
    row = json.loads(cove(tmp_path, "namespaces", "limits", "red", "--clear", "--max-vcpu", "1", "--json"))
    assert (row["max_sandboxes"], row["max_vcpu"]) == (None, 1)


def test_limits_of_a_key(tmp_path: Path) -> None:
    cove(tmp_path, "keys", "create", "k", "--max-sandboxes", "3", "--max-total-vcpu", "4", "--quiet")
    row = json.loads(cove(tmp_path, "keys", "list", "--json"))[0]
    assert row["limits"] == "max_sandboxes=3 max_total_vcpu=4"


def test_an_unknown_namespace(tmp_path: Path) -> None:
    with pytest.raises(CoveError) as caught:
        cove(tmp_path, "namespaces", "limits", "red")
    assert caught.value.code == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize("value", ["-1", "x", "1.5"])
def test_what_is_no_limit(tmp_path: Path, value: str) -> None:
    result = CliRunner().invoke(app, ["namespaces", "limits", "red", "--max-sandboxes", value])
    assert result.exit_code == 2
