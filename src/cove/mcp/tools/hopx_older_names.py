"""Older names of arguments: what assistants still send because older tools and pages taught them so.

Accepted wherever they mean something, listed nowhere. `auth_token` is taken and ignored: the caller's own key decides.
"""

import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from cove.models.identifiers import is_sandbox_id

_OTHER_NAMES = {"workdir": "working_dir", "webhook_url": "callback_url"}
_PATH = re.compile(r"/sandboxes/([^/]+)/?")
_LABEL = re.compile(r"(?:[0-9]{1,5}-)?([^-]+)")


def current_names(given: Any, *, sandbox: str) -> Any:
    """The arguments under their present names.

    Args:
        sandbox: what this tool calls the id of a sandbox: `sandbox_id` or `id`.

    Raises:
        ValueError: two of them say different things, or `vm_url` names no sandbox.
    """
    if not isinstance(given, Mapping):
        return given
    named = {**cast("Mapping[str, Any]", given)}
    named.pop("auth_token", None)
    for name in {"sandbox_id", "id"} - {sandbox}:
        _rename(named, name, sandbox)
    if named.get("vm_url") is not None:
        named["vm_url"] = sandbox_id_of(named["vm_url"])
    _rename(named, "vm_url", sandbox)
    for older, present in _OTHER_NAMES.items():
        _rename(named, older, present)
    return named


def sandbox_id_of(url: Any) -> str:
    """The sandbox whose agent has this address; the scheme may be missing, and an id stands for itself.

    Raises:
        ValueError: it is the address of no sandbox.
    """
    text = url if isinstance(url, str) else ""
    if is_sandbox_id(text):
        return text
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        found = _PATH.fullmatch(parts.path) or _LABEL.fullmatch((parts.hostname or "").partition(".")[0])
    except ValueError:
        found = None
    if found is None or not is_sandbox_id(found[1]):
        raise ValueError("vm_url is not the direct_url of a sandbox; pass the id as sandbox_id")
    return found[1]


def _rename(named: dict[str, Any], older: str, present: str) -> None:
    value = named.pop(older, None)
    if value is None:
        return
    if named.get(present) not in (None, value):
        raise ValueError(f"{older} and {present} say different things; pass {present} only")
    named[present] = value
