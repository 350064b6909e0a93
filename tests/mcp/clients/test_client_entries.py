"""What goes into each client's file, read back as the client reads it."""

import json
import tomllib
from base64 import b64decode
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from cove.mcp.clients.addresses import server_address
from cove.mcp.clients.entries import PLACEHOLDER, Wanted, addition
from cove.mcp.clients.programs import Program
from cove.mcp.clients.snippets import links, snippet, vscode_argument
from cove.mcp.clients.table import CLIENTS, Client, ClientName, Language
from cove.models.errors import CoveError

PROGRAM = Program("/opt/über cove/bin/cove")
EVERY = pytest.mark.parametrize("client", CLIENTS.values(), ids=lambda client: client.name)


def written(client: Client, **wanted: Any) -> dict[str, Any]:
    """The snippet for `client`, parsed."""
    text = snippet(client, addition(client, Wanted(program=PROGRAM, **wanted)))
    return tomllib.loads(text) if client.language is Language.TOML else json.loads(text)


def entry_of(client: Client, **wanted: Any) -> dict[str, Any]:
    """The entry in it."""
    whole = written(client, **wanted)
    assert whole.keys() - {"inputs"} == {client.servers}
    return whole[client.servers][wanted.get("name", "cove")]


def test_every_name_has_its_row() -> None:
    assert list(CLIENTS) == list(ClientName)


@EVERY
def test_a_program_is_started_by_its_absolute_path(client: Client) -> None:
    entry = entry_of(client, toolset="core", variables={"COVE_DATA_DIR": "/data"})
    expected = {"command": PROGRAM.command, "args": ["mcp", "--toolset", "core"], "env": {"COVE_DATA_DIR": "/data"}}
    types = {ClientName.VSCODE: "stdio", ClientName.CLAUDE_CODE: "stdio"}
    assert entry == expected | ({"type": types[client.name]} if client.name in types else {})


@EVERY
def test_nothing_is_asked_for_where_none_is_needed(client: Client) -> None:
    text = snippet(client, addition(client, Wanted(program=PROGRAM)))
    assert "KEY" not in text
    assert "inputs" not in text


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("cursor", {"url": "U", "headers": {"Authorization": "Bearer ${env:COVE_API_KEY}"}}),
        ("vscode", {"type": "http", "url": "U", "headers": {"Authorization": "Bearer ${input:cove-api-key}"}}),
        ("claude-code", {"type": "http", "url": "U", "headers": {"Authorization": "Bearer ${COVE_API_KEY}"}}),
        ("windsurf", {"serverUrl": "U", "headers": {"Authorization": "Bearer ${env:COVE_API_KEY}"}}),
        ("codex", {"url": "U", "bearer_token_env_var": "COVE_API_KEY"}),
    ],
)
def test_over_http_the_key_stays_out_of_the_file(client: str, expected: dict[str, Any]) -> None:
    expected = {name: "https://cove.example/mcp" if value == "U" else value for name, value in expected.items()}
    assert entry_of(CLIENTS[ClientName(client)], http=True, server="https://cove.example") == expected


def test_vs_code_asks_for_the_key_without_showing_it() -> None:
    whole = written(CLIENTS[ClientName.VSCODE], http=True)
    (asked,) = whole["inputs"]
    assert asked["type"] == "promptString"
    assert asked["password"] is True
    assert whole["servers"]["cove"]["headers"]["Authorization"] == f"Bearer ${{input:{asked['id']}}}"


def test_a_client_without_addresses_gets_a_program_that_carries_the_calls() -> None:
    client = CLIENTS[ClientName.CLAUDE_DESKTOP]
    made = addition(client, Wanted(program=PROGRAM, http=True))
    assert made.carried
    assert made.lacks_key
    assert made.entry["args"] == ["mcp", "--server", "http://127.0.0.1:5555"]
    assert made.entry["env"] == {"COVE_API_KEY": PLACEHOLDER}


@EVERY
@pytest.mark.parametrize("http", [True, False])
def test_a_key_is_written_only_where_it_is_given(client: Client, http: bool) -> None:
    wanted: dict[str, Any] = {"http": http, "server": "https://cove.example"}
    assert "hopx_live_1" not in json.dumps(written(client, **wanted))
    given = written(client, key="hopx_live_1", **wanted)
    assert "hopx_live_1" in json.dumps(given)
    assert "inputs" not in given
    assert "${" not in json.dumps(given)
    keyless = json.dumps(written(client, keyless=True, **wanted))
    assert "KEY" not in keyless
    assert "Bearer" not in keyless


@EVERY
def test_a_program_for_a_server_gets_the_key_in_its_environment(client: Client) -> None:
    entry = entry_of(client, server="https://cove.example", name="team")
    assert entry["args"] == ["mcp", "--server", "https://cove.example"]
    if client.names_variables:
        assert entry["env_vars"] == ["COVE_API_KEY"]
    else:
        assert entry["env"] == {"COVE_API_KEY": client.key_reference or PLACEHOLDER}


@pytest.mark.parametrize("name", [ClientName.CURSOR, ClientName.CODEX])
def test_over_http_the_address_chooses_the_set_of_tools(name: ClientName) -> None:
    entry = entry_of(CLIENTS[name], http=True, toolset="core")
    assert entry["url"] == "http://127.0.0.1:5555/mcp?toolset=core"


@pytest.mark.parametrize("http", [True, False])
def test_links_of_cursor_hold_the_entry(http: bool) -> None:
    client = CLIENTS[ClientName.CURSOR]
    made = addition(client, Wanted(program=PROGRAM, http=http))
    for link, start in zip(
        links(client, made), ("cursor://anysphere.cursor-deeplink/mcp/install", "https://"), strict=True
    ):
        assert link.startswith(start)
        query = parse_qs(urlsplit(link).query, strict_parsing=True)
        assert query["name"] == ["cove"]
        assert json.loads(b64decode(query["config"][0], validate=True)) == made.entry


@pytest.mark.parametrize("http", [True, False])
def test_links_of_vs_code_hold_the_entry(http: bool) -> None:
    client = CLIENTS[ClientName.VSCODE]
    made = addition(client, Wanted(program=PROGRAM, http=http))
    link, page = links(client, made)
    scheme, _, query = link.partition("?")
    assert scheme == "vscode:mcp/install"
    expected = {"name": "cove", **({"inputs": list(made.inputs)} if http else {}), **made.entry}
    assert json.loads(unquote(query)) == expected == json.loads(vscode_argument(made))
    assert parse_qs(urlsplit(page).query, strict_parsing=True)["url"] == [link]


def test_others_have_no_links() -> None:
    for name in (ClientName.CODEX, ClientName.CLAUDE_CODE, ClientName.WINDSURF, ClientName.CLAUDE_DESKTOP):
        assert links(CLIENTS[name], addition(CLIENTS[name], Wanted(program=PROGRAM))) == ()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://127.0.0.1:5555", "http://127.0.0.1:5555"),
        ("http://127.0.0.1:5555/mcp", "http://127.0.0.1:5555"),
        ("https://cove.example/team/mcp/", "https://cove.example/team"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_addresses(given: str, address: str) -> None:
    assert server_address(given, http=True) == address


@pytest.mark.parametrize(
    "given",
    [
        "",
        "localhost:5555",
        "ftp://cove.example",
        "http://",
        "http://user:secret@cove.example",
        "http://cove.example?key=1",
        "http://cove.example/#x",
        "http://cove.example:x",
        "http://cove.example/${env:HOME}",
        "http://cove.example/a b",
        "http://cove.example/\x1b[31m",
        'http://cove.example/"',
        "http+unix:///run/cove.sock",
    ],
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(CoveError, match="address of a Cove server"):
        server_address(given, http=True)


def test_a_program_reaches_a_unix_socket() -> None:
    assert server_address("http+unix:///run/cove.sock", http=False) == "http+unix:///run/cove.sock"
