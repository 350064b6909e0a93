"""Addresses of resources: `cove://SANDBOX/PATH` for files, `cove://templates/NAME` and `cove://guide` for documents."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from cove.models.identifiers import is_sandbox_id

SCHEME: Final = "cove"
GUIDE: Final = f"{SCHEME}://guide"
FILE_TEMPLATE: Final = f"{SCHEME}://{{sandbox}}/{{+path}}"
"""RFC 6570; `+` lets the slashes of a path through."""
DOCUMENT_TEMPLATE: Final = f"{SCHEME}://templates/{{name}}"
MAX_CHARACTERS: Final = 16_384

_PREFIX: Final = f"{SCHEME}://"
_TEMPLATES: Final = "templates"


@dataclass(frozen=True, slots=True)
class Guide:
    """The document about the whole."""


@dataclass(frozen=True, slots=True)
class TemplateDocument:
    """The document about one template."""

    name: str


@dataclass(frozen=True, slots=True)
class SandboxFile:
    """A file or directory of a sandbox; `path` is absolute."""

    sandbox_id: str
    path: str


Address = Guide | TemplateDocument | SandboxFile


def parse_address(uri: str) -> Address | None:
    """What `uri` names; None if it can name nothing.

    The path is everything behind the sandbox, percent-decoded (RFC 3986, section 2.1); `?` and `#` belong to it, for
    models write paths as they are. What is in a path is for the sandbox to judge.
    """
    if len(uri) > MAX_CHARACTERS or not uri.startswith(_PREFIX):
        return None
    if uri == GUIDE:
        return Guide()
    place, _, rest = uri.removeprefix(_PREFIX).partition("/")
    decoded = _decoded(rest)
    if decoded is None:
        return None
    if place == _TEMPLATES:
        return TemplateDocument(decoded) if decoded else None
    return SandboxFile(place, "/" + decoded.lstrip("/")) if is_sandbox_id(place) else None


def document_uri(template: str) -> str:
    """Of the document about a template."""
    return f"{_PREFIX}{_TEMPLATES}/{quote(template, safe='')}"


def file_uri(sandbox_id: str, path: str) -> str:
    """Of a file in a sandbox; `path` is absolute."""
    return f"{_PREFIX}{sandbox_id}{quote(path, errors='surrogateescape')}"


def _decoded(text: str) -> str | None:
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeError:
        return None
    return None if "\0" in decoded else decoded
