"""The page of each client shows what the command prints."""

import pytest
from tests.docs.documents import ROOT, blocks

from cove.mcp.clients.entries import Wanted, addition
from cove.mcp.clients.locations import user_location
from cove.mcp.clients.programs import Program
from cove.mcp.clients.snippets import snippet
from cove.mcp.clients.table import CLIENTS, Client

PAGES = ROOT / "docs" / "clients"
PROGRAM = Program("/home/user/.local/bin/cove")
EVERY = pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)


@EVERY
def test_entries_are_those_that_are_printed(client: Client) -> None:
    shown = [block.text for block in blocks(PAGES / f"{client.name}.md", client.language)]
    ways = (Wanted(program=PROGRAM), Wanted(program=PROGRAM, http=True))
    assert shown == [snippet(client, addition(client, way)) for way in ways]


@EVERY
def test_files_are_those_that_are_written(client: Client) -> None:
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    path = user_location(client, platform="linux", home=ROOT / "~", variables={}).path.relative_to(ROOT)
    project = f"`{client.project_file}`" if client.project_file else "none"
    assert f"| {client.title} | [{client.name}.md]({client.name}.md) | `{path}` | {project} |" in index
