"""Completion: sandboxes, templates and paths for the arguments of resource templates and prompts."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    PromptReference,
)

from cove.mcp.addresses import DOCUMENT_TEMPLATE, FILE_TEMPLATE
from cove.mcp.callers import Caller
from cove.mcp.prompts import Prompt, find_prompt
from cove.mcp.refusals import protocol_error
from cove.mcp.resources import WhoAsks
from cove.models.errors import CoveError, NotFound
from cove.models.identifiers import is_sandbox_id
from cove.models.sandboxes import SandboxInfo, SandboxStatus

MAX_VALUES: Final = 100
"""server/utilities/completion, Response: no more than this."""
_PAGE: Final = 100
_ENTRIES: Final = 1000

Source = Callable[[Caller, str, Mapping[str, str]], Awaitable[Iterable[str]]]
"""What could stand for an argument, given what was typed and the arguments that are already known."""


async def complete(who: WhoAsks, prompts: Mapping[str, Prompt], params: CompleteRequestParams) -> CompleteResult:
    """Up to a hundred values that begin with what was typed.

    Raises:
        MCPError: INVALID_PARAMS, there is no such prompt or resource template; the platform failed.
    """
    source = _source(prompts, params)
    if source is None:
        return _result([])
    known = (params.context.arguments if params.context else None) or {}
    typed = params.argument.value
    try:
        async with who() as caller:
            found = await source(caller, typed, known)
    except CoveError as failure:
        raise protocol_error(failure) from None
    return _result([value for value in dict.fromkeys(found) if value.startswith(typed)])


def _source(prompts: Mapping[str, Prompt], params: CompleteRequestParams) -> Source | None:
    """Where values of the argument come from; None where any text will do."""
    if isinstance(params.ref, PromptReference):
        find_prompt(prompts, params.ref.name)
        return _OF_PROMPTS.get(params.argument.name)
    sources = _OF_RESOURCES.get(params.ref.uri)
    if sources is None:
        known = ", ".join(_OF_RESOURCES)
        raise MCPError(INVALID_PARAMS, f"There is no such resource template. There are: {known}.")
    return sources.get(params.argument.name)


async def _running(caller: Caller) -> tuple[SandboxInfo, ...]:
    return (await caller.control.page(status=SandboxStatus.RUNNING, limit=_PAGE)).data


async def _sandbox_ids(caller: Caller, typed: str, known: Mapping[str, str]) -> Iterable[str]:
    return [info.id for info in await _running(caller)]


async def _sandbox_names(caller: Caller, typed: str, known: Mapping[str, str]) -> Iterable[str]:
    namespace = known.get("namespace")
    return sorted(info.name for info in await _running(caller) if info.name and namespace in (None, "", info.namespace))


async def _namespaces(caller: Caller, typed: str, known: Mapping[str, str]) -> Iterable[str]:
    return sorted({"default", *(info.namespace for info in await _running(caller) if info.namespace)})


async def _templates(caller: Caller, typed: str, known: Mapping[str, str]) -> Iterable[str]:
    return sorted(info.name for info in await caller.control.templates() if info.is_active)


async def _paths(caller: Caller, typed: str, known: Mapping[str, str]) -> Iterable[str]:
    """What the directory that was typed so far holds; without a sandbox nobody knows."""
    sandbox_id = known.get("sandbox", "")
    if not is_sandbox_id(sandbox_id) or "\0" in typed:
        return []
    if "/" not in typed:
        return ["workspace/", "tmp/", "home/user/"]
    above = typed.rpartition("/")[0]
    try:
        sandbox = await caller.sandbox(sandbox_id)
        page = await sandbox.files.list_page("/" + above.lstrip("/"), limit=_ENTRIES)
    except NotFound as missing:
        caller.forget_after(missing, sandbox_id)
        return []
    return [
        f"{above}/{entry.name}{'/' if entry.is_directory else ''}" for entry in page.files if not entry.encoded_path
    ]


def _result(values: list[str]) -> CompleteResult:
    more = len(values) > MAX_VALUES
    return CompleteResult(completion=Completion(values=values[:MAX_VALUES], total=len(values), has_more=more))


_OF_RESOURCES: Final[Mapping[str, Mapping[str, Source]]] = {
    FILE_TEMPLATE: {"sandbox": _sandbox_ids, "path": _paths},
    DOCUMENT_TEMPLATE: {"name": _templates},
}
_OF_PROMPTS: Final[Mapping[str, Source]] = {"sandbox_name": _sandbox_names, "namespace": _namespaces}
