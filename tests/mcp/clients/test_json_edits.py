"""Entries in JSON files: everything else stays, byte for byte."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cove.mcp.clients.json_edit import with_item, with_server
from cove.mcp.clients.json_source import NotJsonError, read
from cove.models.errors import CoveError

ENTRY = {"command": "/opt/cove", "args": ["mcp"], "env": {"A": 'ü\n"{}[]//'}}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
DOCUMENTS = st.dictionaries(st.text(), VALUES, max_size=4)
INDENTS = st.sampled_from([None, 1, 2, 4, "\t"])

COMMENTED = """{
    // first
    "servers": { // of mine
        "a": {"url": "x"}, // the old one
        /* b is gone */
    }, /* after */
    "inputs": [], // none
    "last": 1.50e2
}
"""


@given(DOCUMENTS, INDENTS)
def test_what_is_there_stays(document: dict[str, Any], indent: int | str | None) -> None:
    text = json.dumps(document, indent=indent)
    servers = document.get("servers", {})
    document = document if isinstance(servers, dict) else {**document, "servers": {}}
    text = text if isinstance(servers, dict) else json.dumps(document, indent=indent)
    edited = with_server(text, "servers", "cove", ENTRY)
    assert json.loads(edited) == {**document, "servers": {**document.get("servers", {}), "cove": ENTRY}}
    assert _is_kept(text, edited)
    assert with_server(edited, "servers", "cove", ENTRY) == edited


@given(DOCUMENTS, INDENTS)
def test_what_json_reads_is_read_alike(document: dict[str, Any], indent: int | str | None) -> None:
    text = json.dumps(document, indent=indent)
    node = read(text)
    assert node.value == json.loads(text)
    assert text[node.start : node.end] == text


def test_comments_and_layout_stay() -> None:
    edited = with_item(with_server(COMMENTED, "servers", "cove", {"url": "y"}), "inputs", {"id": "key"})
    assert edited == (
        """{
    // first
    "servers": { // of mine
        "a": {"url": "x"}, // the old one
        /* b is gone */
        "cove": {
            "url": "y"
        },
    }, /* after */
    "inputs": [
        {
            "id": "key"
        }
    ], // none
    "last": 1.50e2
}
"""
    )


def test_a_comment_stays_with_the_member_that_it_follows() -> None:
    edited = with_server('{"s": {\n  "a": 1 // of a\n}}', "s", "b", 2)  # pyright: ignore[reportArgumentType]
    assert edited == '{"s": {\n  "a": 1, // of a\n  "b": 2\n}}'


def test_line_ends_and_tabs_are_those_of_the_file() -> None:
    text = '{\r\n\t"servers": {\r\n\t\t"a": {}\r\n\t}\r\n}\r\n'
    edited = with_server(text, "servers", "cove", {"url": "y"})
    assert edited == '{\r\n\t"servers": {\r\n\t\t"a": {},\r\n\t\t"cove": {\r\n\t\t\t"url": "y"\r\n\t\t}\r\n\t}\r\n}\r\n'


def test_an_entry_is_replaced_where_it_stands() -> None:
    text = '{"servers": {"cove": {"url": "x"}, "z": 1}, "n": 1.0}'
    edited = with_server(text, "servers", "cove", {"url": "y"})
    assert json.loads(edited) == {"servers": {"cove": {"url": "y"}, "z": 1}, "n": 1.0}
    assert edited.endswith(', "z": 1}, "n": 1.0}')


def test_of_a_member_that_stands_twice_the_last_counts() -> None:
    text = '{"servers": {"a": 1}, "servers": {"b": 2}}'
    edited = with_server(text, "servers", "cove", {})
    assert json.loads(edited)["servers"] == {"b": 2, "cove": {}}
    assert '"servers": {"a": 1}' in edited


def test_an_entry_with_comments_is_not_replaced() -> None:
    with pytest.raises(CoveError, match="comments"):
        with_server('{"servers": {"cove": {"url": "x" /* mine */}}}', "servers", "cove", {"url": "y"})


def test_an_input_is_there_once() -> None:
    text = '{"inputs": [{"id": "key", "type": "promptString"}, 1, null]}'
    assert with_item(text, "inputs", {"id": "key"}) == text
    assert json.loads(with_item(text, "inputs", {"id": "other"}))["inputs"][-1] == {"id": "other"}


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 1, 1),
        ("{", 1, 2),
        ('{\n  "a" 1\n}', 2, 7),
        ('{"a": 1 "b": 2}', 1, 9),
        ('{"a": }', 1, 7),
        ("{'a': 1}", 1, 2),
        ('{"a": tru}', 1, 7),
        ('{"a": 01}', 1, 7),
        ('{"a": NaN}', 1, 7),
        ('{"a": 1}}', 1, 9),
        ('{"a": "x\ny"}', 1, 7),
        ('{"a": "\\q"}', 1, 7),
        ('{"a": 1} /* open', 1, 10),
        ("[" * 300, 1, 202),
        ("<<<<<<< HEAD\n{}", 1, 1),
    ],
)
def test_where_a_file_is_broken(text: str, line: int, column: int) -> None:
    with pytest.raises(NotJsonError) as caught:
        read(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize("text", ["[]", "1", '{"servers": []}', '{"servers": null}'])
def test_something_else_is_there(text: str) -> None:
    with pytest.raises(CoveError, match="no JSON object"):
        with_server(text, "servers", "cove", {})


def test_inputs_that_are_no_array() -> None:
    with pytest.raises(CoveError, match="no array"):
        with_item('{"inputs": {}}', "inputs", {"id": "key"})


def _is_kept(old: str, new: str) -> bool:
    """Whether `new` is `old` with one piece put in (and a comma, and space where a brace went to a line of its own)."""
    squeezed_old, squeezed_new = re.sub(r"\s", "", old), re.sub(r"\s", "", new)
    added = len(squeezed_new) - len(squeezed_old)
    common = len(_common_start(squeezed_old, squeezed_new))
    return added > 0 and squeezed_old[common:] == squeezed_new[common + added :]


def _common_start(one: str, other: str) -> str:
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[:same]
