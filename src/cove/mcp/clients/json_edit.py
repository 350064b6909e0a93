"""Entries put into a JSON file of the user's, whose comments, order and layout stay as they are."""

import json
import re
from collections.abc import Mapping
from typing import Any

from cove.mcp.clients.json_source import Node, has_comments, read
from cove.models.errors import error

_INDENT = re.compile(r"^([ \t]+)[^ \t\r\n/*]", re.MULTILINE)


def with_server(text: str, servers: str, name: str, entry: Mapping[str, Any]) -> str:
    """`text` with the member `name` in its object `servers`, which is made if there is none.

    Raises:
        NotJsonError: `text` holds no JSON.
        CoveError: something else than an object stands there, or the old entry holds comments.
    """
    root = _object(read(text), "The file")
    if servers not in root.members:
        return _put(text, root, servers, {name: entry})
    return _put(text, _object(root.members[servers], f"{servers!r}"), name, entry)


def with_item(text: str, key: str, item: Mapping[str, Any]) -> str:
    """`text` with `item` in its array `key`, unless one with the same `id` is there.

    Raises:
        NotJsonError: `text` holds no JSON.
        CoveError: something else than an array stands there.
    """
    root = _object(read(text), "The file")
    if key not in root.members:
        return _put(text, root, key, [item])
    array = root.members[key]
    if not isinstance(array.value, list):
        raise error("CONFLICT", f"{key!r} is no array.", remedy="Correct the file, or paste the entry by hand.")
    if any("id" in found.members and found.members["id"].value == item["id"] for found in array.items):
        return text
    return _append(text, array, _rendered(text, item, _indent_within(text, array)), "]")


def _object(node: Node, what: str) -> Node:
    if not isinstance(node.value, dict):
        raise error("CONFLICT", f"{what} is no JSON object.", remedy="Correct the file, or paste the entry by hand.")
    return node


def _put(text: str, node: Node, key: str, value: Any) -> str:
    old = node.members.get(key)
    if old is None:
        indent = _indent_within(text, node)
        return _append(text, node, f"{json.dumps(key)}: {_rendered(text, value, indent)}", "}")
    if old.value == value:
        return text
    if has_comments(text[old.start : old.end]):
        raise error("CONFLICT", f"The entry {key!r} holds comments, which would be lost.", remedy="Edit it by hand.")
    return text[: old.start] + _rendered(text, value, _indent_of(text, node.keys[key])) + text[old.end :]


def _append(text: str, node: Node, member: str, closing: str) -> str:
    """Put `member` before what closes `node`, behind the comments that stand there."""
    newline, indent = _newline(text), _indent_within(text, node)
    close = node.end - len(closing)
    kept = text[node.last : close].rstrip()
    filled = bool(node.members or node.items)
    before = "," if filled and not node.comma else ""
    after = "," if node.comma else ""
    ending = f"{newline}{_indent_of(text, node.start)}"
    return f"{text[: node.last]}{before}{kept}{newline}{indent}{member}{after}{ending}{text[close:]}"


def _rendered(text: str, value: Any, indent: str) -> str:
    lines = json.dumps(value, indent=_unit(text), ensure_ascii=False).split("\n")
    return f"{_newline(text)}{indent}".join(lines)


def _indent_within(text: str, node: Node) -> str:
    """What stands before the members: as the first one has it, if it has a line of its own."""
    starts = [*node.keys.values(), *(item.start for item in node.items)]
    if starts and not text[text.rfind("\n", 0, starts[0]) + 1 : starts[0]].strip():
        return _indent_of(text, starts[0])
    return _indent_of(text, node.start) + _unit(text)


def _indent_of(text: str, position: int) -> str:
    """What stands before the line of `position`."""
    line = text[text.rfind("\n", 0, position) + 1 : position]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    """One step of indentation, as the first line that has any has it."""
    found = _INDENT.search(text)
    return found[1] if found else "  "


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
