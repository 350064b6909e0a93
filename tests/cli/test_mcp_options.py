"""The short way to `cove mcp`: which command lines take it, and what the environment adds."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cove.cli.app import app
from cove.cli.mcp_stdio import KEY_VARIABLES, URL_VARIABLES, Options, api_key, data_directory, plain_options


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*URL_VARIABLES, *KEY_VARIABLES, "COVE_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], Options()),
        (["--toolset", "core"], Options(toolset="core")),
        (["--server=http://x:1", "--data-dir", "/d"], Options(server="http://x:1", data_dir=Path("/d"))),
    ],
)
def test_plain_options(arguments: list[str], options: Options) -> None:
    assert plain_options(arguments) == options


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["config"],
        ["install", "--client", "cursor"],
        ["--toolset"],
        ["--toolset", "none"],
        ["x"],
    ],
)
def test_all_else_is_for_the_full_command_line(arguments: list[str]) -> None:
    assert plain_options(arguments) is None


def test_what_is_wrong_is_said_before_anything_starts() -> None:
    refused = CliRunner().invoke(app, ["mcp", "--toolset", "none"])
    assert refused.exit_code == 1
    assert "microsandbox" in str(getattr(refused.exception, "remedy", ""))


def test_the_environment_names_a_server_and_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Options().server_url is None
    assert api_key() is None
    for url, key in zip(reversed(URL_VARIABLES), reversed(KEY_VARIABLES), strict=True):
        monkeypatch.setenv(url, f"http://{url}")
        monkeypatch.setenv(key, f"key of {key}")
        assert Options().server_url == f"http://{url}"
        assert api_key() == f"key of {key}"
    assert Options(server="http://given").server_url == "http://given"


def test_the_environment_names_a_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COVE_DATA_DIR", str(tmp_path))
    assert data_directory(Options()) == tmp_path
    assert data_directory(Options(data_dir=Path("/elsewhere"))) == Path("/elsewhere")
