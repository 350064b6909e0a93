"""Requests as data, checked before they leave: nothing here does input or output."""

import base64
import math
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ValidationError

from cove.models.environment import EnvironmentChange
from cove.models.errors import CoveError, error
from cove.models.files import MAX_WRITE_BYTES, MakeDirectory, WriteFile
from cove.models.identifiers import is_sandbox_id
from cove.models.network import NetworkPolicy
from cove.models.previews import CreatePreviewLink, SetPreviewAccess
from cove.models.sandboxes import CreateSandbox, SetTimeout
from cove.models.volumes import CopyVolume
from cove.sdk._retry import Retry

Model = TypeVar("Model", bound=BaseModel)

CONTROL_SECONDS = 60.0
CREATE_SECONDS = 120.0
FILE_SECONDS = 60.0
TRANSFER_SECONDS = 3600.0
VOLUME_SECONDS = 330.0
GRACE_SECONDS = 30.0
STALL_SECONDS = 60.0

MAX_ANSWER_BYTES = 128 * 1024 * 1024
MAX_READ_BYTES = 64 * 1024 * 1024
MAX_STREAM_BYTES = 4 * 1024 * 1024 * 1024
MAX_DOWNLOAD_BYTES = 4 * 1024 * 1024 * 1024
MAX_OFFSET = 2**53

DEFAULT_TEMPLATE = "code-interpreter"
SandboxPath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request.

    Attributes:
        path: path and query as they go on the wire, beginning with a slash.
        content: the body, a JSON text; None sends none.
        timeout: seconds for the whole exchange.
        stall: seconds without progress; never more than `timeout`.
        headers: extra ones.
    """

    method: str
    path: str
    content: bytes | None = field(default=None, repr=False)
    timeout: float = CONTROL_SECONDS
    stall: float = STALL_SECONDS
    retry: Retry = Retry.UNLESS_SENT
    max_answer_bytes: int = MAX_ANSWER_BYTES
    headers: tuple[tuple[str, str], ...] = ()


def get(path: str, *, timeout: float = CONTROL_SECONDS, max_answer_bytes: int = MAX_ANSWER_BYTES) -> Call:
    """A read, which may be repeated."""
    return Call(method="GET", path=path, timeout=timeout, retry=Retry.IDEMPOTENT, max_answer_bytes=max_answer_bytes)


def create(template: str | None, *, template_id: str | int | None, **fields: Any) -> Call:
    """`POST /v1/sandboxes`; without a template the default one."""
    if template is not None and template_id is not None:
        raise error("INVALID_REQUEST", "Both template and template_id are given.", remedy="Give one of them.")
    if template_id is None:
        fields["template_name"] = DEFAULT_TEMPLATE if template is None else template
    body = checked(CreateSandbox, template_id=template_id, **fields)
    return Call(
        method="POST",
        path="/v1/sandboxes",
        content=as_json(body),
        timeout=CREATE_SECONDS,
        stall=CREATE_SECONDS,
        retry=Retry.UNLESS_ACCEPTED,
        headers=(("Idempotency-Key", secrets.token_hex(16)),),
    )


def list_sandboxes(
    *, status: str | None, region: str | None, limit: int, cursor: str | None, name: str | None = None
) -> Call:
    """`GET /v1/sandboxes`, one page."""
    if not 1 <= limit <= 1000:
        raise error("INVALID_REQUEST", f"limit is {limit}; it must be from 1 to 1000.")
    return get(with_query("/v1/sandboxes", limit=limit, status=status, region=region, name=name, cursor=cursor))


def sandbox_path(sandbox_id: str, suffix: str = "") -> str:
    """`/v1/sandboxes/{id}` and what follows.

    Raises:
        InvalidRequest: `sandbox_id` cannot be an id, so that it never becomes another path.
    """
    if not is_sandbox_id(sandbox_id):
        raise error(
            "INVALID_REQUEST",
            f"{str(sandbox_id)[:80]!r} is not a sandbox id: ten digits and eight lower-case letters or digits.",
            remedy="`cove sandboxes list` shows the ids.",
        )
    return f"/v1/sandboxes/{sandbox_id}{suffix}"


def lifecycle(sandbox_id: str, action: str) -> Call:
    """`POST .../pause`, `.../resume`, `.../stop`, `.../start`, `.../token/refresh`: all may be repeated."""
    return Call(method="POST", path=sandbox_path(sandbox_id, f"/{action}"), retry=Retry.IDEMPOTENT)


def execution_path(execution_id: str, suffix: str = "") -> str:
    """`/v1/executions/{id}` and what follows."""
    if not execution_id or execution_id in (".", ".."):
        raise error("INVALID_REQUEST", f"{execution_id!r} is not the id of an execution.")
    return f"/v1/executions/{quoted(execution_id)}{suffix}"


def set_timeout(sandbox_id: str, seconds: int) -> Call:
    """`PUT .../timeout`."""
    body = checked(SetTimeout, timeout_seconds=seconds)
    path = sandbox_path(sandbox_id, "/timeout")
    return Call(method="PUT", path=path, content=as_json(body), retry=Retry.IDEMPOTENT)


def network(sandbox_id: str, *, after: int) -> Call:
    """`GET .../network`."""
    return get(with_query(sandbox_path(sandbox_id, "/network"), after=_count("after", after)))


def set_network(sandbox_id: str, policy: NetworkPolicy | Mapping[str, Any]) -> Call:
    """`PUT .../network`."""
    try:
        body = NetworkPolicy.model_validate(policy)
    except ValidationError as problem:
        raise _invalid(problem) from None
    path = sandbox_path(sandbox_id, "/network")
    return Call(method="PUT", path=path, content=as_json(body), retry=Retry.IDEMPOTENT)


def preview_link(sandbox_id: str, *, port: int, expires_in: int) -> Call:
    """`POST .../previews`; a link too many does no harm."""
    body = checked(CreatePreviewLink, port=port, expires_in_seconds=expires_in)
    path = sandbox_path(sandbox_id, "/previews")
    return Call(method="POST", path=path, content=as_json(body), retry=Retry.IDEMPOTENT)


def set_preview_access(sandbox_id: str, access: str) -> Call:
    """`PUT .../previews`."""
    body = checked(SetPreviewAccess, access=access)
    path = sandbox_path(sandbox_id, "/previews")
    return Call(method="PUT", path=path, content=as_json(body), retry=Retry.IDEMPOTENT)


def secret_path(name: str, sandbox_id: str | None = None) -> str:
    """`/v1/secrets/{name}`, or `.../secrets/{name}` of a sandbox."""
    if not name or name in (".", ".."):
        raise error("INVALID_REQUEST", f"{name!r} is not the name of a secret.")
    tail = f"/secrets/{quoted(name)}"
    return f"/v1{tail}" if sandbox_id is None else sandbox_path(sandbox_id, tail)


def with_secrets(method: str, path: str, build: Callable[[], BaseModel]) -> Call:
    """A request whose body holds a secret: what is wrong with it is said without it."""
    try:
        body = build()
    except ValidationError as problem:
        raise _invalid(problem, shown=False) from None
    return Call(method=method, path=path, content=as_json(body), retry=Retry.IDEMPOTENT)


def copy_volume(sandbox_id: str, host_path: str, path: str) -> Call:
    """`POST .../volumes`."""
    body = checked(CopyVolume, host_path=checked_path(host_path), path=checked_path(path))
    target = sandbox_path(sandbox_id, "/volumes")
    return Call(method="POST", path=target, content=as_json(body), timeout=VOLUME_SECONDS, stall=VOLUME_SECONDS)


def template_path(name: str) -> str:
    """`/v1/templates/{name or id}`."""
    if not name or name in (".", ".."):
        raise error("INVALID_REQUEST", f"{name!r} is not the name of a template.")
    return f"/v1/templates/{quoted(name)}"


def write_file(path: SandboxPath, content: str | bytes, *, mode: str, overwrite: bool) -> Call:
    """`POST /files/write`."""
    raw = encoded(content) if isinstance(content, str) else content
    if len(raw) > MAX_WRITE_BYTES:
        raise error(
            "REQUEST_TOO_LARGE",
            f"The content is {len(raw)} bytes; at most {MAX_WRITE_BYTES} can be written at once.",
            remedy="Put it in a local file and use files.upload(), which streams it.",
        )
    text, encoding = (content, "utf-8") if isinstance(content, str) else (base64.b64encode(raw).decode(), "base64")
    body = checked(WriteFile, path=checked_path(path), content=text, mode=mode, encoding=encoding, overwrite=overwrite)
    return Call(method="POST", path="/files/write", content=as_json(body), timeout=FILE_SECONDS)


def make_directory(path: SandboxPath) -> Call:
    """`POST /files/mkdir`."""
    body = checked(MakeDirectory, path=checked_path(path))
    return Call(method="POST", path="/files/mkdir", content=as_json(body), timeout=FILE_SECONDS)


def of_file(
    operation: str,
    path: SandboxPath,
    *,
    method: str = "GET",
    offset: int | None = None,
    limit: int | None = None,
) -> Call:
    """`/files/{operation}?path=...`; `offset` and `limit` for those operations that answer in parts."""
    part = {name: _count(name, value) for name, value in (("offset", offset), ("limit", limit)) if value is not None}
    target = with_query(f"/files/{operation}", path=checked_path(path), **part)
    retry = Retry.IDEMPOTENT if method == "GET" else Retry.UNLESS_SENT
    return Call(method=method, path=target, timeout=FILE_SECONDS, retry=retry)


def change_environment(method: str, variables: Mapping[str, str]) -> Call:
    """`PUT /env` (replace) or `PATCH /env` (merge); both end the same however often they are sent."""
    body = checked(EnvironmentChange, env_vars=dict(variables))
    return Call(method=method, path="/env", content=as_json(body), retry=Retry.IDEMPOTENT)


def checked(model: type[Model], **fields: Any) -> Model:
    """A `model`, or InvalidRequest that names the argument."""
    try:
        return model(**fields)
    except ValidationError as problem:
        raise _invalid(problem) from None


def checked_path(path: SandboxPath) -> str:
    """A path inside the sandbox, as text."""
    text = cast(object, os.fspath(path))
    if not isinstance(text, str) or not text or "\0" in text:
        raise error("INVALID_PATH", f"{str(text)[:80]!r} is not a path: it must be text, not empty, without NUL.")
    encoded(text)
    return text


def with_query(path: str, /, **parameters: str | int | None) -> str:
    """`path` with the parameters that are not None."""
    given = {name: value for name, value in parameters.items() if value is not None}
    try:
        return f"{path}?{urlencode(given, quote_via=quote)}" if given else path
    except UnicodeEncodeError:
        raise _not_unicode() from None


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not 0 <= value <= MAX_OFFSET:
        raise error("INVALID_REQUEST", f"{name} is {value}; it must be from 0 to {MAX_OFFSET}.")
    return value


def check_seconds(name: str, seconds: float) -> float:
    """`seconds` when it is a finite positive number."""
    if not math.isfinite(seconds) or seconds <= 0:
        raise error("INVALID_REQUEST", f"{name} is {seconds}; it must be a positive number of seconds.")
    return seconds


def as_json(body: BaseModel) -> bytes:
    """`body` as a request carries it; what is None is left out."""
    try:
        return body.model_dump_json(exclude_none=True).encode()
    except (ValueError, UnicodeEncodeError):
        raise _not_unicode() from None


def quoted(text: str, *, safe: str = "") -> str:
    """`text` as a part of a path."""
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:
        raise _not_unicode() from None


def encoded(text: str) -> bytes:
    """`text` as UTF-8.

    Raises:
        InvalidRequest: it holds lone surrogates.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _not_unicode() from None


def _not_unicode() -> CoveError:
    return error("INVALID_REQUEST", "A text holds lone surrogates, which UTF-8 cannot carry.")


def _invalid(problem: ValidationError, *, shown: bool = True) -> CoveError:
    """`shown`: whether what was given may be repeated; what is below `secrets` never is."""
    first = problem.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or "the arguments"
    shown = shown and "secrets" not in first["loc"]
    given = f" (given: {repr(first['input'])[:80]})" if shown else ""
    return error("INVALID_REQUEST", f"{name}: {first['msg']}{given}.", field=name)
