"""Entries in TOML files: everything else stays, byte for byte."""

import tomllib

import pytest

from cove.mcp.clients.toml_edit import with_server
from cove.models.errors import CoveError

ENTRY = {"command": "/opt/cove", "args": ["mcp"], "env": {"A": 'ü\n"'}}

FILE = """\
# mine
model = "x" # keep
when = 2026-01-02T03:04:05Z

[mcp_servers.other]   # another
command = 'uvx'
args = [ "hopx-mcp",
         "two" ] # here

[[profiles]]
n = 0x1F
"""


def test_what_is_there_stays() -> None:
    edited = with_server(FILE, "mcp_servers", "cove", ENTRY)
    assert tomllib.loads(edited)["mcp_servers"]["cove"] == ENTRY
    lines = iter(edited.splitlines())
    assert all(line in lines for line in FILE.splitlines())
    assert with_server(edited, "mcp_servers", "cove", ENTRY) == edited


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        'model = "x"\n',
        '[mcp_servers]\na.command = "x"\n',
        'mcp_servers.a.command = "x"\nmodel = "y"\n',
        '[mcp_servers.a]\ncommand = "x"\n[tui]\nx = 1\n[mcp_servers.b]\ncommand = "y" # b\n',
        '[mcp_servers.a.env]\nX = "1"\n',
        'mcp_servers = { a = { command = "x" } }\n',
        '["mcp_servers"."a"]\ncommand = "x"\n\n',
    ],
)
def test_in_every_layout_nothing_else_changes_or_nothing_does(text: str) -> None:
    before = tomllib.loads(text)
    try:
        after = tomllib.loads(with_server(text, "mcp_servers", "cove", ENTRY))
    except CoveError as problem:
        assert "cannot be set" in problem.message
        return
    assert after.pop("mcp_servers") == {**before.pop("mcp_servers", {}), "cove": ENTRY}
    assert after == before


def test_only_what_differs_in_an_entry_is_written() -> None:
    text = '[mcp_servers.cove]\ncommand = "/old" # why\nargs = ["mcp"] # these\nurl = "x"\n\n[z]\na = 1\n'
    edited = with_server(text, "mcp_servers", "cove", {"command": "/opt/cove", "args": ["mcp"]})
    assert edited == '[mcp_servers.cove]\ncommand = "/opt/cove" # why\nargs = ["mcp"] # these\n\n[z]\na = 1\n'


def test_line_ends_are_those_of_the_file() -> None:
    text = FILE.replace("\n", "\r\n")
    edited = with_server(text, "mcp_servers", "cove", ENTRY)
    assert edited.count("\n") == edited.count("\r\n")


def test_something_else_is_there() -> None:
    with pytest.raises(CoveError, match="no table"):
        with_server("mcp_servers = 1\n", "mcp_servers", "cove", ENTRY)


def test_a_broken_file_names_its_line() -> None:
    with pytest.raises(tomllib.TOMLDecodeError, match="line 2"):
        with_server("a = 1\nb = = 2\n", "mcp_servers", "cove", ENTRY)
