"""Resources: files of the caller's sandboxes, and documents about the templates."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from mimetypes import MimeTypes
from typing import Any, Final

from mcp_types import (
    BlobResourceContents,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from cove.mcp.addresses import (
    DOCUMENT_TEMPLATE,
    FILE_TEMPLATE,
    GUIDE,
    Guide,
    SandboxFile,
    TemplateDocument,
    document_uri,
    file_uri,
    parse_address,
)
from cove.mcp.callers import Caller
from cove.mcp.refusals import protocol_error, resource_not_found
from cove.models.errors import CoveError, InvalidRequest, NotFound, error
from cove.models.files import FileContent, FileEntry
from cove.models.sandboxes import SandboxStatus
from cove.models.templates import TemplateInfo
from cove.sdk import AsyncSandbox

MAX_BYTES: Final = 1024 * 1024
"""Of a file that is read in one piece; what is larger is for the tool `file_read`."""
MAX_ENTRIES: Final = 1000
MAX_SANDBOXES: Final = 50
MAX_TEMPLATES: Final = 200
_LIST_SECONDS: Final = 5.0
_WORKSPACE: Final = "/workspace"
_MARKDOWN: Final = "text/markdown"
_JSON: Final = "application/json"
_DIRECTORY: Final = "inode/directory"
_TEXTS: Final = frozenset({_JSON, "application/javascript", "application/xml", "application/toml", "image/svg+xml"})

WhoAsks = Callable[[], AbstractAsyncContextManager[Caller]]

_GUIDE_RESOURCE: Final = Resource(
    uri=GUIDE,
    name="guide",
    title="How to use the sandboxes",
    description="What the tools are for, and in which order to use them.",
    mime_type=_MARKDOWN,
)
RESOURCE_TEMPLATES: Final = ListResourceTemplatesResult(
    resource_templates=[
        ResourceTemplate(
            uri_template=FILE_TEMPLATE,
            name="sandbox-file",
            title="A file in a sandbox",
            description=(
                f"A file of one of your sandboxes, up to {MAX_BYTES // 1024} KiB, or what a directory holds. `path` is "
                "the absolute path inside without its first slash, for example workspace/data.csv."
            ),
        ),
        ResourceTemplate(
            uri_template=DOCUMENT_TEMPLATE,
            name="template",
            title="What a template holds",
            description="Languages and packages of a template that sandboxes are created from.",
            mime_type=_MARKDOWN,
        ),
    ]
)


async def list_resources(who: WhoAsks) -> ListResourcesResult:
    """The guide, the templates, and the working directories of the caller's running sandboxes.

    Clients ask for it as they start: where the platform does not answer soon, the guide alone is listed.
    """
    found: list[Resource] = []
    try:
        async with asyncio.timeout(_LIST_SECONDS), who() as caller:
            templates = await caller.control.templates()
            page = await caller.control.page(status=SandboxStatus.RUNNING, limit=MAX_SANDBOXES)
    except (CoveError, TimeoutError):
        return ListResourcesResult(resources=[_GUIDE_RESOURCE])
    found += [_template_resource(info) for info in templates[:MAX_TEMPLATES] if info.is_active]
    found += [_workspace_resource(info.id, info.name, info.template_name) for info in page.data]
    return ListResourcesResult(resources=[_GUIDE_RESOURCE, *found])


async def read_resource(who: WhoAsks, uri: str, *, guide: str, protocol_version: str) -> ReadResourceResult:
    """What is at `uri`; `guide` is the text of the document about the whole.

    Raises:
        MCPError: there is nothing, with the code that the revision has for it; it is too large; the platform failed.
    """
    address = parse_address(uri)
    if address is None:
        raise resource_not_found(
            uri, protocol_version, f"Addresses are {FILE_TEMPLATE}, {DOCUMENT_TEMPLATE} and {GUIDE}."
        )
    if isinstance(address, Guide):
        return _text(uri, guide, _MARKDOWN)
    try:
        async with who() as caller:
            if isinstance(address, TemplateDocument):
                return _text(uri, _document(await caller.control.template(address.name)), _MARKDOWN)
            return await _read_file(caller, uri, address)
    except NotFound as missing:
        raise resource_not_found(uri, protocol_version, missing.message) from None
    except CoveError as failure:
        raise protocol_error(failure, uri=uri) from None


async def _read_file(caller: Caller, uri: str, address: SandboxFile) -> ReadResourceResult:
    try:
        sandbox = await caller.sandbox(address.sandbox_id)
        try:
            content = await sandbox.files.read_range(address.path, limit=MAX_BYTES + 1)
        except CoveError as failure:
            if failure.code != "INVALID_PATH":
                raise
            return await _read_directory(sandbox, uri, address, failure)
    except CoveError as failure:
        caller.forget_after(failure, address.sandbox_id)
        raise
    if content.size > MAX_BYTES:
        raise error(
            "REQUEST_TOO_LARGE",
            f"{address.path} has {content.size} bytes; a resource is at most {MAX_BYTES}.",
            remedy="Read it in parts with the tool file_read(path, offset, limit).",
        )
    return _file(uri, address.path, content)


async def _read_directory(
    sandbox: AsyncSandbox, uri: str, address: SandboxFile, no_file: CoveError
) -> ReadResourceResult:
    try:
        page = await sandbox.files.list_page(address.path, limit=MAX_ENTRIES)
    except (InvalidRequest, NotFound):
        # Neither a file nor a directory: a device, say.
        raise no_file from None
    return _directory(uri, address, page.files, truncated=page.truncated)


def _file(uri: str, path: str, content: FileContent) -> ReadResourceResult:
    # A table of its own: the machine's must not change what is answered.
    guessed = MimeTypes().guess_type(path.rpartition("/")[2])[0]
    if content.encoding != "utf-8":
        kind = guessed or "application/octet-stream"
        return ReadResourceResult(contents=[BlobResourceContents(uri=uri, mime_type=kind, blob=content.content)])
    is_text = guessed is not None and (guessed.startswith("text/") or guessed in _TEXTS)
    return _text(uri, content.content, guessed if guessed and is_text else "text/plain")


def _directory(
    uri: str, address: SandboxFile, entries: tuple[FileEntry, ...], *, truncated: bool
) -> ReadResourceResult:
    base = address.path.rstrip("/")
    shown = [
        {
            "name": entry.name,
            # A name that is not UTF-8 has no address.
            "uri": None if entry.encoded_path else file_uri(address.sandbox_id, f"{base}/{entry.name}"),
            "directory": entry.is_directory,
            "size": entry.size,
        }
        for entry in entries
    ]
    listing: dict[str, Any] = {"path": address.path, "entries": shown, "truncated": truncated}
    if truncated:
        listing["note"] = f"Only the first {len(shown)}; the tool file_list shows more."
    return _text(uri, json.dumps(listing), _JSON)


def _text(uri: str, text: str, mime_type: str) -> ReadResourceResult:
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=mime_type, text=text)])


def _template_resource(info: TemplateInfo) -> Resource:
    return Resource(
        uri=document_uri(info.name),
        name=f"template {info.name}",
        title=info.display_name,
        description=info.description or "A template that sandboxes are created from.",
        mime_type=_MARKDOWN,
    )


def _workspace_resource(sandbox_id: str, name: str | None, template: str | None) -> Resource:
    return Resource(
        uri=file_uri(sandbox_id, _WORKSPACE),
        name=f"sandbox {name or sandbox_id}",
        title=f"{_WORKSPACE} of {name or sandbox_id}",
        description=f"Working directory of a running sandbox of the template {template or 'unknown'}.",
        mime_type=_DIRECTORY,
    )


def _document(info: TemplateInfo) -> str:
    lines = [f"# {info.display_name}", "", info.description or "", ""]
    lines += [f"- Name: `{info.name}`, for `template_name` of create_sandbox and execute_code_isolated"]
    lines += [f"- Languages: {', '.join(info.features) or 'unknown'}"]
    resources = info.default_resources
    if resources is not None:
        lines += [
            f"- Limits unless others are asked for: {resources.vcpu} processors, {resources.memory_mb} MiB of memory, "
            f"{resources.disk_gb} GiB of disk"
        ]
    if info.packages:
        lines += ["", "## Packages", "", *(f"- {name} {version}" for name, version in info.packages.items())]
    return "\n".join(lines) + "\n"
