"""JSON-RPC 2.0 as microsandbox's server spoke it: one object a request, no batches (contract section 1.2 to 1.5).

What fails before a method is known, or has to do with credentials or parameters, is not answered as JSON-RPC but with
the server's own envelope: a status, and `{"error": text, "code": number}`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cove.compat.microsandbox.config import SandboxConfig, none_to_empty
from cove.compat.microsandbox.metrics import metrics
from cove.compat.microsandbox.running import OutputLimit, run_code, run_command
from cove.compat.microsandbox.sandboxes import NamedSandboxes
from cove.models.errors import (
    AuthenticationFailed,
    CoveError,
    InvalidRequest,
    NotFound,
    Unsupported,
    definition_of,
    error,
)
from cove.sdk import AsyncControlPlane

NO_KEY = 1001
WRONG_KEY = 1004
INVALID = 2001
OTHER_NAMESPACE = 3001
NOT_FOUND = 4001
INTERNAL = 5001

_INVALID_REQUEST = -32600
_UNKNOWN_METHOD = -32601
_INVALID_PARAMS = -32602
_RUN_FAILED = -32000
_MAX_SHOWN = 5
_JSON_TYPES = ("application/json", "+json")


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and a body: JSON, or where JSON was not understood, text."""

    status: int
    body: Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """One call. `reference` holds its id, if it has one, as it is echoed."""

    version: str
    method: str
    params: Any
    reference: Mapping[str, str | int]

    def result(self, result: Any) -> Reply:
        """The answer. It has no `error`, not even null: a client takes the mere name for a failure."""
        return Reply(200, {"jsonrpc": "2.0", "result": result, **self.reference})

    def error(self, status: int, code: int, message: str, data: Mapping[str, Any] | None = None) -> Reply:
        """An error of JSON-RPC."""
        fields: dict[str, Any] = {"code": code, "message": message}
        if data is not None:
            fields["data"] = data
        return Reply(status, {"jsonrpc": "2.0", "error": fields, **self.reference})


class _Params(BaseModel):
    """Fields that are not known are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    namespace: str | None = None


class _OfOne(_Params):
    sandbox: str


class _Start(_OfOne):
    config: SandboxConfig | None = None


class _RunCode(_OfOne):
    code: str
    language: str
    timeout: float | None = None


class _RunCommand(_OfOne):
    command: str
    args: Annotated[list[str], BeforeValidator(none_to_empty), Field(max_length=10_000)] = []
    timeout: float | None = None


class _Metrics(_Params):
    sandbox: str | None = None


async def _start(control: AsyncControlPlane, params: _Start) -> str:
    return await NamedSandboxes(control, params.namespace).start(params.sandbox, params.config)


async def _stop(control: AsyncControlPlane, params: _OfOne) -> str:
    return await NamedSandboxes(control, params.namespace).stop(params.sandbox)


async def _run_code(control: AsyncControlPlane, params: _RunCode) -> dict[str, Any]:
    sandbox = await NamedSandboxes(control, params.namespace).running(params.sandbox)
    result = await run_code(sandbox, params.code, language=params.language, timeout=params.timeout, limit=OutputLimit())
    return result.model_dump(mode="json")


async def _run_command(control: AsyncControlPlane, params: _RunCommand) -> dict[str, Any]:
    sandbox = await NamedSandboxes(control, params.namespace).running(params.sandbox)
    result = await run_command(sandbox, params.command, params.args, timeout=params.timeout, limit=OutputLimit())
    return result.model_dump(mode="json")


async def _metrics(control: AsyncControlPlane, params: _Metrics) -> dict[str, Any]:
    return (await metrics(control, params.namespace, params.sandbox)).model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class _Method:
    """
    Attributes:
        runs: its failures are errors of JSON-RPC.
    """

    params: type[_Params]
    call: Callable[[AsyncControlPlane, Any], Awaitable[Any]]
    runs: bool = False


_METHODS: Mapping[str, _Method] = {
    "sandbox.start": _Method(_Start, _start),
    "sandbox.stop": _Method(_OfOne, _stop),
    "sandbox.repl.run": _Method(_RunCode, _run_code, runs=True),
    "sandbox.command.run": _Method(_RunCommand, _run_command, runs=True),
    "sandbox.metrics.get": _Method(_Metrics, _metrics),
}


def read_request(content_type: str | None, body: bytes) -> RpcRequest | Reply:
    """The request, or the answer to one that cannot be read."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if not kind.startswith("application/") or not kind.endswith(_JSON_TYPES):
        return Reply(415, "The body must be JSON, with Content-Type: application/json.")
    try:
        found: Any = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Reply(400, "The body is not JSON.")
    if not isinstance(found, dict):
        return Reply(422, "The body must be one JSON-RPC object.")
    fields = cast("dict[str, Any]", found)
    version, method, number = fields.get("jsonrpc"), fields.get("method"), fields.get("id")
    if not isinstance(version, str) or not isinstance(method, str):
        return Reply(422, "The object needs the texts `jsonrpc` and `method`.")
    if isinstance(number, bool) or not isinstance(number, str | int | None):
        return Reply(422, "The `id` is neither text nor a whole number.")
    return RpcRequest(version, method, fields.get("params"), {} if number is None else {"id": number})


async def answer(request: RpcRequest, control: AsyncControlPlane) -> Reply:
    """Do what is asked for, with the key of `control`."""
    if request.version != "2.0":
        return request.error(400, _INVALID_REQUEST, "Invalid or missing jsonrpc version field: it must be 2.0.")
    method = _METHODS.get(request.method)
    if method is None:
        names = ", ".join(_METHODS)
        return request.error(404, _UNKNOWN_METHOD, f"There is no method {request.method[:100]!r}. There are: {names}.")
    try:
        params = method.params.model_validate({} if request.params is None else request.params)
    except ValidationError as problem:
        return refusal(error("INVALID_REQUEST", _problems(problem)))
    try:
        return request.result(await method.call(control, params))
    except CoveError as failure:
        if not method.runs or isinstance(failure, AuthenticationFailed) or failure.code == "FORBIDDEN":
            return refusal(failure, unknown_is_invalid=method.params is not _Metrics)
        wrong = isinstance(failure, InvalidRequest | Unsupported)
        code = _INVALID_PARAMS if wrong else _RUN_FAILED
        return request.error(200, code, str(failure), {"code": failure.code, "remedy": failure.remedy})


def refusal(failure: CoveError, *, unknown_is_invalid: bool = False, credential: int = WRONG_KEY) -> Reply:
    """A failure in the server's envelope.

    Args:
        unknown_is_invalid: the method answers to an unknown name as to a bad one.
        credential: the code of a failed authentication.
    """
    status = definition_of(failure.code).status
    code: int | None = None
    if isinstance(failure, AuthenticationFailed):
        status, code = 401, credential
    elif failure.code == "FORBIDDEN":
        status, code = 403, OTHER_NAMESPACE
    elif isinstance(failure, NotFound) and not unknown_is_invalid:
        code = NOT_FOUND
    elif status >= 500:
        code = INTERNAL
    elif status not in (405, 413, 429):
        status, code = 400, INVALID
    return Reply(status, {"error": str(failure), "code": code})


def _problems(problem: ValidationError) -> str:
    """Which parameters are wrong and how, without repeating what was sent."""
    shown: list[str] = []
    for found in problem.errors(include_url=False, include_input=False)[:_MAX_SHOWN]:
        place = ".".join(str(part)[:80] for part in cast("tuple[Any, ...]", found["loc"])[:4])
        shown.append(f"{place or 'params'}: {found['msg'].removeprefix('Value error, ')}")
    return "; ".join(shown)


def _refuse_constant(name: str) -> Any:
    """JSON has neither NaN nor infinity (RFC 8259 section 6)."""
    raise ValueError(name)
