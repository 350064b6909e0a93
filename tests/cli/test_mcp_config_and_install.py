"""`cove mcp config` and `cove mcp install`, in this process: what they print, write and refuse."""

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cove.cli import mcp_clients
from cove.mcp.clients.table import ClientName
from cove.models.errors import CoveError

Cove = Callable[..., Result]
COVE = str(Path(sys.executable).parent / "cove")


@pytest.fixture
def cove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cove:
    """Run a command with a home directory of its own."""
    for name in ("COVE_DATA_DIR", "XDG_CONFIG_HOME", "CODEX_HOME", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COVE_API_KEY", "hopx_live_secret")
    monkeypatch.setattr(sys, "platform", "linux")

    def run(*arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(mcp_clients.app, arguments, input=stdin)

    return run


def refusal(result: Result) -> CoveError:
    """The error that ended it."""
    assert isinstance(result.exception, CoveError), result.output
    return result.exception


@pytest.mark.parametrize("client", list(ClientName))
def test_only_the_entry_goes_to_stdout(cove: Cove, client: ClientName) -> None:
    result = cove("config", "--client", client)
    assert result.exit_code == 0
    whole = tomllib.loads(result.stdout) if client is ClientName.CODEX else json.loads(result.stdout)
    ((servers, entries),) = whole.items()
    assert servers in ("mcpServers", "servers", "mcp_servers")
    assert entries["cove"]["command"] == COVE
    assert "It goes into " in result.stderr


@pytest.mark.parametrize("client", list(ClientName))
def test_what_is_printed_is_what_is_installed(cove: Cove, client: ClientName, tmp_path: Path) -> None:
    printed = cove("config", "--client", client, "--url", "http://box:5555", "--no-key").stdout
    assert cove("install", "--client", client, "--url", "http://box:5555", "--no-key").exit_code == 0
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.read_text() == printed


@pytest.mark.parametrize("client", list(ClientName))
def test_a_key_in_the_environment_is_not_written(cove: Cove, client: ClientName, tmp_path: Path) -> None:
    for http in ([], ["--http"], ["--url", "https://cove.example"]):
        printed = cove("config", "--client", client, *http)
        assert "hopx_live_secret" not in printed.output
        cove("install", "--client", client, "--name", f"cove{len(http)}", *http)
    assert all("hopx_live_secret" not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_install_keeps_a_copy_and_is_done_once(cove: Cove, tmp_path: Path) -> None:
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text('{"mcpServers": {"hopx-sandbox": {"command": "uvx", "args": ["hopx-mcp"]}}}')
    shown = cove("install", "--client", "cursor", "--dry-run")
    assert f'+    "command": "{COVE}",' in shown.stdout
    assert "Nothing was changed" in shown.stderr
    assert "cove" not in file.read_text()
    done = cove("install", "--client", "cursor")
    assert "'hopx-sandbox' runs hopx-mcp and stays as it is" in done.stderr
    assert list(json.loads(file.read_text())["mcpServers"]) == ["hopx-sandbox", "cove"]
    assert len(list(file.parent.glob("mcp.json.*.bak"))) == 1
    again = cove("install", "--client", "cursor")
    assert "says all of it already" in again.stderr
    assert len(list(file.parent.iterdir())) == 2


def test_install_for_a_project(cove: Cove, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    assert cove("install", "--client", "vscode", "--http", "--project", str(project)).exit_code == 0
    written = json.loads((project / ".vscode" / "mcp.json").read_text())
    assert written["servers"]["cove"]["url"] == "http://127.0.0.1:5555/mcp"
    assert [asked["id"] for asked in written["inputs"]] == ["cove-api-key"]


def test_a_key_is_given_on_stdin_and_hidden_in_the_difference(cove: Cove, tmp_path: Path) -> None:
    options = ("install", "--client", "claude-desktop", "--url", "https://cove.example", "--key", "-")
    shown = cove(*options, "--dry-run", stdin="hopx_live_given\n")
    assert "hopx_live_given" not in shown.output
    assert '"COVE_API_KEY": "***"' in shown.stdout
    assert cove(*options, stdin="hopx_live_given\n").exit_code == 0
    file = tmp_path / ".config" / "Claude" / "claude_desktop_config.json"
    assert json.loads(file.read_text())["mcpServers"]["cove"]["env"] == {"COVE_API_KEY": "hopx_live_given"}
    assert file.stat().st_mode & 0o077 == 0


def test_the_data_directory_of_the_shell_reaches_the_program(cove: Cove, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_DATA_DIR", "/srv/cove")
    whole = json.loads(cove("config", "--client", "cursor").stdout)
    assert whole["mcpServers"]["cove"]["env"] == {"COVE_DATA_DIR": "/srv/cove"}


def test_uvx(cove: Cove) -> None:
    entry = json.loads(cove("config", "--client", "cursor", "--uvx").stdout)["mcpServers"]["cove"]
    assert Path(entry["command"]).name == "uvx"
    assert entry["args"] == ["--from", "cove-sandbox", "cove", "mcp"]


def test_links(cove: Cove) -> None:
    assert cove("config", "--client", "cursor", "--link").stdout.startswith("cursor://anysphere.cursor-deeplink/")
    assert cove("config", "--client", "vscode", "--link").stdout.startswith("vscode:mcp/install?")
    assert "no such links" in refusal(cove("config", "--client", "codex", "--link")).message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", "a b"], "no name of a server"),
        (["--name", "a.b"], "no name of a server"),
        (["--toolset", "some"], "no set of tools"),
        (["--url", "box:5555"], "not the address"),
        (["--key", "k"], "A key is for a server"),
        (["--no-key"], "A key is for a server"),
        (["--http", "--key", "k", "--no-key"], "both given"),
        (["--http", "--key", "a b"], "no API key"),
        (["--http", "--key", "-"], "no API key"),
        (["--http", "--key", "k", "--project", "."], "no key goes into them"),
        (["--project", "/nowhere"], "not a directory"),
    ],
)
def test_what_is_refused(cove: Cove, arguments: list[str], words: str, tmp_path: Path) -> None:
    assert words in refusal(cove("install", "--client", "cursor", *arguments)).message
    assert list(tmp_path.iterdir()) == []


def test_claude_desktop_needs_the_key_in_the_clear(cove: Cove, tmp_path: Path) -> None:
    problem = refusal(cove("install", "--client", "claude-desktop", "--http"))
    assert "no way to keep the key" in problem.message
    assert ".mcpb" in problem.remedy
    assert "PASTE-YOUR-KEY-HERE" in cove("config", "--client", "claude-desktop", "--http").stdout


def test_a_file_with_control_characters_does_not_reach_the_terminal(cove: Cove, tmp_path: Path) -> None:
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text('{"mcpServers": {"a\\u001b[31m": {"command": "hopx-mcp"}} // \x1b[31m\n}')
    assert "\x1b" not in cove("install", "--client", "cursor", "--dry-run").output
