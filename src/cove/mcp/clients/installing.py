"""Putting an entry into the file of a client, beside whatever is there."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import unified_diff
from pathlib import Path
from typing import Any, cast

from cove.mcp.clients.config_files import ConfigFile, read_file, write_file
from cove.mcp.clients.entries import Addition
from cove.mcp.clients.entry_merging import merged, other_servers
from cove.mcp.clients.json_source import NotJsonError
from cove.mcp.clients.locations import Location
from cove.mcp.clients.table import Client, Language
from cove.models.errors import error


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be done, and nothing of it yet.

    Attributes:
        text: what the file will hold.
        others: a line for each server that is in the way of Cove's.
    """

    location: Location
    file: ConfigFile
    text: str
    others: list[str]

    @property
    def is_one(self) -> bool:
        """False if the file says all of it already."""
        return self.text != self.file.text

    def difference(self) -> str:
        """The change as a unified diff; empty if there is none."""
        old = (self.file.text or "").splitlines(keepends=True)
        path = str(self.file.path)
        lines = unified_diff(old, self.text.splitlines(keepends=True), path, path, n=2)
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)

    def apply(self, *, secret: bool) -> Path | None:
        """Write the file. Returns the copy of the old one, None if there was none.

        Raises:
            CoveError: it cannot be written, or has been changed meanwhile.
        """
        return write_file(self.location, self.file, self.text, secret=secret, now=datetime.now(UTC))


def planned_change(client: Client, location: Location, addition: Addition) -> Change:
    """How the file at `location` has to change.

    Raises:
        CoveError: the file is broken (with line and column), is laid out so that it cannot be changed with care, or
            holds another server of that name.
    """
    file = read_file(location)
    text = file.text or ""
    try:
        servers = _servers(client, text)
        entry = merged(_member(servers, addition.name), addition.entry, name=addition.name)
        edited = _edited(client, text, addition, entry)
    except (NotJsonError, tomllib.TOMLDecodeError) as problem:
        raise error(
            "INVALID_REQUEST",
            f"{file.path} is broken: {problem}.",
            remedy="Correct it first; nothing was changed.",
            line=getattr(problem, "line", None),
            column=getattr(problem, "column", None),
        ) from None
    others = other_servers(servers, except_for=addition.name)
    return Change(location=location, file=file, text=edited, others=others)


def _servers(client: Client, text: str) -> object:
    if client.language is Language.TOML:
        return tomllib.loads(text).get(client.servers)
    from cove.mcp.clients.json_source import read

    return _member(read(text).value, client.servers) if text.strip() else None


def _member(container: object, key: str) -> object:
    return cast("Mapping[str, Any]", container).get(key) if isinstance(container, Mapping) else None


def _edited(client: Client, text: str, addition: Addition, entry: Mapping[str, Any]) -> str:
    if client.language is Language.TOML:
        from cove.mcp.clients import toml_edit

        return toml_edit.with_server(text, client.servers, addition.name, entry)
    from cove.mcp.clients import json_edit

    edited = text if text.strip() else "{}\n"
    for item in addition.inputs:
        edited = json_edit.with_item(edited, "inputs", item)
    return json_edit.with_server(edited, client.servers, addition.name, entry)
