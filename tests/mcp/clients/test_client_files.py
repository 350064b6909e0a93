"""Files of clients: found, replaced as a whole, with a copy, and left alone where anything is odd."""

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cove.mcp.clients.config_files import MAX_BYTES, read_file, write_file
from cove.mcp.clients.entries import Addition
from cove.mcp.clients.installing import planned_change
from cove.mcp.clients.locations import Location, project_location, user_location
from cove.mcp.clients.table import CLIENTS, Client, ClientName
from cove.models.errors import CoveError

HOME = Path("/home/user")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
CURSOR, VSCODE, CODEX = CLIENTS[ClientName.CURSOR], CLIENTS[ClientName.VSCODE], CLIENTS[ClientName.CODEX]
COVE = Addition(name="cove", entry={"command": "/opt/cove", "args": ["mcp"]})


@pytest.mark.parametrize(
    ("client", "platform", "path"),
    [
        ("cursor", "linux", ".cursor/mcp.json"),
        ("cursor", "darwin", ".cursor/mcp.json"),
        ("cursor", "win32", ".cursor/mcp.json"),
        ("vscode", "linux", ".config/Code/User/mcp.json"),
        ("vscode", "darwin", "Library/Application Support/Code/User/mcp.json"),
        ("vscode", "win32", "AppData/Roaming/Code/User/mcp.json"),
        ("claude-desktop", "linux", ".config/Claude/claude_desktop_config.json"),
        ("claude-desktop", "darwin", "Library/Application Support/Claude/claude_desktop_config.json"),
        ("claude-desktop", "win32", "AppData/Roaming/Claude/claude_desktop_config.json"),
        ("claude-code", "linux", ".claude.json"),
        ("windsurf", "darwin", ".codeium/windsurf/mcp_config.json"),
        ("codex", "linux", ".codex/config.toml"),
        ("codex", "freebsd14", ".codex/config.toml"),
    ],
)
def test_where_the_file_of_a_user_is(client: str, platform: str, path: str) -> None:
    found = user_location(CLIENTS[ClientName(client)], platform=platform, home=HOME, variables={})
    assert found == Location(HOME / path, HOME)


@pytest.mark.parametrize(
    ("client", "variable", "path"),
    [
        ("vscode", "XDG_CONFIG_HOME", "Code/User/mcp.json"),
        ("claude-desktop", "XDG_CONFIG_HOME", "Claude/claude_desktop_config.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("claude-code", "CLAUDE_CONFIG_DIR", ".claude.json"),
    ],
)
def test_variables_of_clients_count(client: str, variable: str, path: str) -> None:
    found = user_location(
        CLIENTS[ClientName(client)], platform="linux", home=HOME, variables={variable: "/elsewhere", "APPDATA": "/no"}
    )
    assert found == Location(Path("/elsewhere") / path, Path("/elsewhere"))


@pytest.mark.parametrize(
    ("client", "path"),
    [
        ("cursor", ".cursor/mcp.json"),
        ("vscode", ".vscode/mcp.json"),
        ("claude-code", ".mcp.json"),
        ("codex", ".codex/config.toml"),
    ],
)
def test_where_the_file_of_a_project_is(client: str, path: str, tmp_path: Path) -> None:
    found = project_location(CLIENTS[ClientName(client)], tmp_path)
    assert found == Location(tmp_path / path, tmp_path, of_project=True)


@pytest.mark.parametrize("client", ["claude-desktop", "windsurf"])
def test_clients_without_a_file_of_a_project(client: str, tmp_path: Path) -> None:
    with pytest.raises(CoveError, match="no configuration of a project"):
        project_location(CLIENTS[ClientName(client)], tmp_path)


def test_a_project_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CoveError, match="not a directory"):
        project_location(CURSOR, tmp_path / "none")


def install(client: Client, home: Path, addition: Addition = COVE) -> Path | None:
    """As `cove mcp install` for a user; the copy of the old file."""
    change = planned_change(client, user_location(client, platform="linux", home=home, variables={}), addition)
    return change.apply(secret=False)


def test_a_file_and_its_directory_are_made(tmp_path: Path) -> None:
    assert install(VSCODE, tmp_path) is None
    file = tmp_path / ".config" / "Code" / "User" / "mcp.json"
    assert json.loads(file.read_text()) == {"servers": {"cove": COVE.entry}}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["mcp.json"]


@pytest.mark.parametrize("content", ["", "\n", "  "])
def test_an_empty_file_counts_as_an_empty_object(tmp_path: Path, content: str) -> None:
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text(content)
    install(CURSOR, tmp_path)
    assert json.loads(file.read_text()) == {"mcpServers": {"cove": COVE.entry}}


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_mode_owner_and_the_old_content_are_kept(tmp_path: Path, mode: int) -> None:
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_bytes(b'\xef\xbb\xbf{"mcpServers": {}}')
    file.chmod(mode)
    if os.geteuid() == 0:
        os.chown(file, 12345, 54321)
    before = file.stat()
    backup = install(CURSOR, tmp_path)
    assert backup and backup.read_bytes() == b'\xef\xbb\xbf{"mcpServers": {}}'
    assert file.read_bytes().startswith(b'\xef\xbb\xbf{"mcpServers"')
    for written in (file, backup):
        after = written.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert {path.name for path in file.parent.iterdir()} == {"mcp.json", backup.name}


def test_what_root_makes_in_a_users_directory_is_the_users(tmp_path: Path, as_root: None) -> None:
    os.chown(tmp_path, 12345, 54321)
    install(VSCODE, tmp_path)
    made = [tmp_path / ".config", tmp_path / ".config" / "Code", tmp_path / ".config" / "Code" / "User" / "mcp.json"]
    assert [(path.stat().st_uid, path.stat().st_gid) for path in made] == [(12345, 54321)] * 3


def test_copies_have_the_time_in_their_name(tmp_path: Path) -> None:
    location = Location(tmp_path / "mcp.json", tmp_path)
    location.path.write_text("{}")
    backup = write_file(location, read_file(location), '{"a": 1}', secret=False, now=NOW)
    assert backup == tmp_path / "mcp.json.20260102T030405.000678.bak"


def test_a_project_file_with_a_key_is_for_its_owner(tmp_path: Path) -> None:
    location = Location(tmp_path / "mcp.json", tmp_path, of_project=True)
    write_file(location, read_file(location), "{}", secret=True, now=NOW)
    assert stat.S_IMODE(location.path.stat().st_mode) == 0o600


def test_a_second_time_nothing_is_to_do(tmp_path: Path) -> None:
    install(CURSOR, tmp_path)
    location = user_location(CURSOR, platform="linux", home=tmp_path, variables={})
    change = planned_change(CURSOR, location, COVE)
    assert not change.is_one
    assert change.difference() == ""


def test_the_difference_shows_what_comes(tmp_path: Path) -> None:
    location = Location(tmp_path / "mcp.json", tmp_path)
    location.path.write_text('{"a": 1}')
    lines = planned_change(CURSOR, location, COVE).difference().splitlines()
    assert lines[:2] == [f"--- {location.path}", f"+++ {location.path}"]
    assert '+    "cove": {' in lines
    assert location.path.read_text() == '{"a": 1}'


def test_a_link_within_the_home_directory_stays_a_link(tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles" / "cursor.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    link = tmp_path / ".cursor" / "mcp.json"
    link.parent.mkdir()
    link.symlink_to("../dotfiles/cursor.json")
    install(CURSOR, tmp_path)
    assert link.is_symlink()
    assert "cove" in kept.read_text()


@pytest.mark.parametrize("directory", [False, True])
def test_a_link_out_of_a_project_is_not_followed(tmp_path: Path, directory: bool) -> None:
    outside, project = tmp_path / "outside", tmp_path / "project"
    outside.mkdir()
    project.mkdir()
    (outside / "mcp.json").write_text("{}")
    if directory:
        (project / ".cursor").symlink_to("../outside")
    else:
        (project / ".cursor").mkdir()
        (project / ".cursor" / "mcp.json").symlink_to("../../outside/mcp.json")
    with pytest.raises(CoveError, match="out of"):
        planned_change(CURSOR, project_location(CURSOR, project), COVE)
    assert (outside / "mcp.json").read_text() == "{}"


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / ".mcp.json").symlink_to(".mcp.json")
    with pytest.raises(CoveError):
        planned_change(CLIENTS[ClientName.CLAUDE_CODE], Location(tmp_path / ".mcp.json", tmp_path), COVE)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("directory", "fifo"):
        with pytest.raises(CoveError):
            read_file(Location(tmp_path / name, tmp_path))


def test_what_is_too_large_or_no_text_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as content:
        content.truncate(MAX_BYTES + 1)
    with pytest.raises(CoveError, match="larger than 16 MiB"):
        read_file(Location(file, tmp_path))
    file.write_bytes(b"{\xff}")
    with pytest.raises(CoveError, match=r"no UTF-8 text \(byte 1\)"):
        read_file(Location(file, tmp_path))


def test_a_file_that_changes_meanwhile_is_left_alone(tmp_path: Path) -> None:
    location = Location(tmp_path / "mcp.json", tmp_path)
    location.path.write_text("{}")
    change = planned_change(CURSOR, location, COVE)
    location.path.write_text('{"by": "the client"}')
    with pytest.raises(CoveError, match="meanwhile"):
        change.apply(secret=False)
    assert location.path.read_text() == '{"by": "the client"}'
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".cove-")] == []


@pytest.mark.parametrize(
    ("client", "text", "where"),
    [(VSCODE, '{\n  "servers": {,}\n}', "line 2, column 15"), (CODEX, "a = 1\nb =\n", "line 2, column 4")],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, client: Client, text: str, where: str) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    with pytest.raises(CoveError, match=where):
        planned_change(client, Location(file, tmp_path), COVE)
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"command": "/old/bin/cove", "args": ["mcp"]}, COVE.entry),
        ({"command": "uvx", "args": ["--from", "cove-sandbox", "cove", "mcp"]}, COVE.entry),
        ({"url": "http://127.0.0.1:5555/mcp?toolset=core", "headers": {}}, COVE.entry),
        (
            {"command": "cove", "disabled": True, "env": {"COVE_API_KEY": "old", "HTTPS_PROXY": "p"}},
            {**COVE.entry, "disabled": True, "env": {"HTTPS_PROXY": "p"}},
        ),
    ],
)
def test_an_older_entry_of_ours_is_renewed(tmp_path: Path, old: object, new: object) -> None:
    location = Location(tmp_path / "mcp.json", tmp_path)
    location.path.write_text(json.dumps({"mcpServers": {"cove": old}}))
    assert json.loads(planned_change(CURSOR, location, COVE).text)["mcpServers"]["cove"] == new


@pytest.mark.parametrize("old", [{"command": "/usr/bin/recove"}, {"url": "https://cove.example/sse"}, {}, [], 1])
def test_an_entry_of_another_program_is_left_alone(tmp_path: Path, old: object) -> None:
    location = Location(tmp_path / "mcp.json", tmp_path)
    location.path.write_text(json.dumps({"mcpServers": {"cove": old}}))
    with pytest.raises(CoveError, match="not Cove's"):
        planned_change(CURSOR, location, COVE)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"command": "uvx", "args": ["hopx-mcp"], "env": {"HOPX_API_KEY": "k"}}, "hopx-mcp"),
        ({"command": "/usr/bin/hopx-mcp"}, "hopx-mcp"),
        ({"command": "npx", "args": ["-y", "microsandbox-mcp@0.7.2"]}, "microsandbox"),
        ({"url": "http://127.0.0.1:5555/mcp"}, "port 5555"),
    ],
)
def test_servers_with_the_same_tools_are_named_and_kept(tmp_path: Path, entry: object, named: str) -> None:
    location = Location(tmp_path / "mcp.json", tmp_path)
    servers = {"theirs": entry, "other": {"command": "node"}, "odd": 1}
    location.path.write_text(json.dumps({"mcpServers": servers}))
    change = planned_change(CURSOR, location, COVE)
    (line,) = change.others
    assert line.startswith("'theirs' runs ")
    assert named in line
    assert json.loads(change.text)["mcpServers"] == {**servers, "cove": COVE.entry}
