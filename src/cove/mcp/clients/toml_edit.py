"""Entries put into a TOML file of the user's, whose comments, order and layout stay as they are."""

import re
import tomllib
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from cove.models.errors import CoveError, error

_BARE = re.compile(r"(?<!\r)\n")


def with_server(text: str, servers: str, name: str, entry: Mapping[str, Any]) -> str:
    """`text` with the table `[servers.name]`. In one that is there the entry's keys are set and no others.

    Raises:
        tomllib.TOMLDecodeError: `text` is no TOML.
        CoveError: something else stands there, or the file is laid out so that the change would change more.
    """
    expected = _expected(tomllib.loads(text), servers, name, entry)
    if expected == tomllib.loads(text):
        return text
    try:
        edited = _edited(text, servers, name, entry)
        kept = tomllib.loads(edited) == expected
    except (TOMLKitError, tomllib.TOMLDecodeError, TypeError, ValueError, KeyError):
        kept, edited = False, ""
    if not kept:
        raise _unsuited(f"[{servers}.{name}] cannot be set without changing more of the file.")
    return edited


def _expected(data: dict[str, Any], servers: str, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    there = data.get(servers, {})
    if not isinstance(there, dict):
        raise _unsuited(f"{servers!r} is no table.")
    return {**data, servers: {**cast("dict[str, Any]", there), name: dict(entry)}}


def _edited(text: str, servers: str, name: str, entry: Mapping[str, Any]) -> str:
    document = tomlkit.parse(text)
    if servers not in document:
        document.add(servers, tomlkit.table(is_super_table=True))
    group = cast("MutableMapping[str, Any]", document[servers])
    if name in group:
        _update(cast("MutableMapping[str, Any]", group[name]), entry)
    else:
        group[name] = dict(entry)
    edited = tomlkit.dumps(document)
    # The library ends the lines that it makes with a line feed alone.
    return _BARE.sub("\r\n", edited) if "\r\n" in text and not _BARE.search(text) else edited


def _update(table: MutableMapping[str, Any], entry: Mapping[str, Any]) -> None:
    for key in [key for key in table if key not in entry]:
        del table[key]
    for key, value in entry.items():
        if table.get(key) != value:
            table[key] = value


def _unsuited(message: str) -> CoveError:
    return error("CONFLICT", message, remedy="Paste the entry by hand; `cove mcp config` prints it.")
