"""docs/mcp.md names the tools that there are, with their arguments, defaults and scopes, and the bounds of the code."""

import json
import re
from typing import Any

import pytest
from tests.docs.documents import ROOT

from cove.core import client_leases
from cove.mcp import bounds, output, pictures, prompts, resources, stdio
from cove.mcp.clients import snippets
from cove.mcp.clients.entries import Wanted, addition
from cove.mcp.clients.programs import DISTRIBUTION, Program
from cove.mcp.clients.table import CLIENTS, ClientName
from cove.mcp.schemas import schema_of
from cove.mcp.tool import AnyTool
from cove.mcp.tools.hopx_arguments import MAX_WAITED_SECONDS
from cove.mcp.toolsets import Toolset, tools_of
from cove.models.volumes import MAX_VOLUME_BYTES, MAX_VOLUME_ENTRIES
from cove.server.mcp import bounds as http
from cove.server.mcp import sessions

PAGE = (ROOT / "docs" / "mcp.md").read_text(encoding="utf-8")
MIB = 1024**2
TOOLS = tools_of(Toolset.ALL)

_TOOL = re.compile(r"^\| `(\w+)` \| (?:`([^`]*)`|none) \| (read|exec|admin) \| .+ \|$", re.M)
_ARGUMENT = re.compile(r"(\w+)(\?|=.*)?")
_SET = re.compile(r"^\| `(\w+)` \| (\d+)", re.M)
LISTED = {name: (arguments, scope) for name, arguments, scope in _TOOL.findall(PAGE)}


def test_every_tool_is_on_the_page() -> None:
    assert LISTED.keys() == TOOLS.keys()


@pytest.mark.parametrize("name", TOOLS)
def test_arguments_defaults_and_scopes_are_those_of_the_code(name: str) -> None:
    arguments, scope = LISTED[name]
    assert scope == TOOLS[name].scope
    assert _named(arguments) == _listed(TOOLS[name])


@pytest.mark.parametrize("toolset", Toolset)
def test_sets_have_the_tools_that_the_page_counts(toolset: Toolset) -> None:
    assert int(dict(_SET.findall(PAGE))[toolset]) == len(tools_of(toolset))
    if toolset is Toolset.CORE:
        row = re.search(r"^\| `core` \|.*$", PAGE, re.M)
        assert row
        assert re.findall(r"`(\w+)`", row[0])[1:] == list(tools_of(toolset))


def test_the_readme_sets_up_every_assistant_and_has_what_the_registry_looks_for() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for client in ClientName:
        assert f"cove mcp install --client {client}\n" in readme
        assert f"(docs/clients/{client}.md)" in readme
    entry = json.loads((ROOT / "packaging" / "mcp" / "server.json").read_text(encoding="utf-8"))
    assert f"<!-- mcp-name: {entry['name']} -->" in readme


@pytest.mark.parametrize("client", [ClientName.CURSOR, ClientName.VSCODE])
def test_links_of_the_readme_install_what_the_command_prints(client: ClientName) -> None:
    # By name, not by the path that this machine may have.
    uvx = Program("uvx", ("--from", DISTRIBUTION, "cove"))
    _, link = snippets.links(CLIENTS[client], addition(CLIENTS[client], Wanted(program=uvx)))
    assert f"({link})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_prompts_are_on_the_page() -> None:
    table = PAGE.partition("## Prompts")[2].partition("## ")[0]
    assert set(prompts.prompts_for(TOOLS)) <= set(re.findall(r"`(\w+)`", table))


@pytest.mark.parametrize(
    "words",
    [
        f"at most {output.DEFAULT_CHARACTERS:,} characters a stream",
        f"{output.MIN_CHARACTERS} to {output.MAX_CHARACTERS:,}",
        f"at most {pictures.MAX_PICTURES} pictures, {pictures.MAX_PICTURE_CHARACTERS // MIB} MB",
        f"up to {resources.MAX_BYTES // MIB} MiB",
        f"(at most {resources.MAX_SANDBOXES})",
        f"| listings in an answer | {bounds.LISTED_CHARACTERS:,} characters |",
        f"| message of `cove mcp` | {stdio.MAX_MESSAGE_BYTES // MIB} MiB |",
        f"| body of `/mcp` | {http.MAX_BODY_BYTES // MIB} MiB; of one caller {http.MAX_BYTES_OF_CALLER // MIB} MiB, "
        f"of all {http.MAX_HELD_BYTES // MIB} MiB",
        f"{sessions.MOST_OF_CALLER} of a key, {sessions.MOST} of a server; {http.IDLE_SECONDS / 60:g} minutes",
        f"| argument of a prompt | {prompts.MAX_ARGUMENT_CHARACTERS:,} characters |",
        f"| volume | {MAX_VOLUME_BYTES // 1024**3} GiB, {MAX_VOLUME_ENTRIES:,} entries |",
        f"| client leases | {client_leases.MAX_LEASES_OF_KEY} of a key, {client_leases.MAX_LEASES} of a server |",
        f"| time of a call that waits for its program | {MAX_WAITED_SECONDS} s",
    ],
)
def test_bounds_are_those_of_the_code(words: str) -> None:
    assert words in PAGE


def _named(arguments: str) -> dict[str, str]:
    """Arguments of the page: how each is marked."""
    found = (_ARGUMENT.fullmatch(one) for one in re.split(r", (?=\w+(?:[=?,]|$))", arguments) if one)
    return {match[1]: match[2] or "" for match in found if match}


def _listed(tool: AnyTool) -> dict[str, str]:
    schema = schema_of(tool.arguments)
    required = schema.get("required", ())
    return {name: "" if name in required else _mark(field) for name, field in schema["properties"].items()}


def _mark(field: dict[str, Any]) -> str:
    default = field.get("default")
    if default is None:
        return "?"
    return f"={json.dumps(int(default) if isinstance(default, float) else default)}"
