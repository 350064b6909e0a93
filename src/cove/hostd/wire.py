"""The Host protocol on a unix socket: one JSON object a line, many calls at once over one connection.

Request: {"id": n, "call": name, "args": {...}}; answer: {"id": n, "ok": value} or {"id": n, "error": {...}}; a call
that yields (build_template) sends {"id": n, "item": value} before its answer. Values are the contract's models.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import pydantic

from cove.hostd.arguments import (
    ChangesArguments,
    CreateArguments,
    DeadlineArguments,
    DeriveArguments,
    NetworkArguments,
    NetworkReportArguments,
    NoArguments,
    SandboxArguments,
    SecretsArguments,
    StopArguments,
    TemplateArguments,
)
from cove.models.errors import CoveError, definition_of, error
from cove.models.hosts import HostCapacity, HostChanges, HostUsage, SandboxRecord
from cove.models.isolation import DriverReport
from cove.models.network import EgressTotals, NetworkReport
from cove.models.templates import BuildProgress, TemplateManifest

MAX_LINE: Final = 16 * 1024 * 1024
"""Of an answer."""
MAX_REQUEST: Final = 2 * 1024 * 1024

# call -> (its arguments, the type of its value)
CALLS: Final[Mapping[str, tuple[type[pydantic.BaseModel], pydantic.TypeAdapter[Any]]]] = {
    "capacity": (NoArguments, pydantic.TypeAdapter(HostCapacity)),
    "check": (NoArguments, pydantic.TypeAdapter(tuple[DriverReport, ...])),
    "create": (CreateArguments, pydantic.TypeAdapter(SandboxRecord)),
    "destroy": (SandboxArguments, pydantic.TypeAdapter(None)),
    "claim": (DeadlineArguments, pydantic.TypeAdapter(SandboxRecord)),
    "set_deadline": (DeadlineArguments, pydantic.TypeAdapter(None)),
    "set_network": (NetworkArguments, pydantic.TypeAdapter(None)),
    "set_secrets": (SecretsArguments, pydantic.TypeAdapter(None)),
    "network": (NetworkReportArguments, pydantic.TypeAdapter(NetworkReport)),
    "pause": (SandboxArguments, pydantic.TypeAdapter(None)),
    "resume": (SandboxArguments, pydantic.TypeAdapter(None)),
    "stop": (StopArguments, pydantic.TypeAdapter(None)),
    "start": (SandboxArguments, pydantic.TypeAdapter(SandboxRecord)),
    "changes": (ChangesArguments, pydantic.TypeAdapter(HostChanges)),
    "list": (NoArguments, pydantic.TypeAdapter(tuple[SandboxRecord, ...])),
    "usage": (SandboxArguments, pydantic.TypeAdapter(HostUsage)),
    "network_totals": (NoArguments, pydantic.TypeAdapter(EgressTotals)),
    "templates": (NoArguments, pydantic.TypeAdapter(tuple[TemplateManifest, ...])),
    "warm": (TemplateArguments, pydantic.TypeAdapter(None)),
    "derive_template": (DeriveArguments, pydantic.TypeAdapter(TemplateManifest)),
    "remove_template": (TemplateArguments, pydantic.TypeAdapter(None)),
    "build_template": (TemplateArguments, pydantic.TypeAdapter(BuildProgress)),
}


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def encode_value(call: str, identifier: int, kind: str, value: Any) -> bytes:
    """An answer or item; the value is serialised by its model."""
    body = CALLS[call][1].dump_json(value, by_alias=True)
    return b'{"id":%d,"%s":%s}\n' % (identifier, kind.encode(), body)


def error_to_wire(problem: CoveError) -> dict[str, Any]:
    """A `CoveError` as JSON."""
    return {
        "code": problem.code,
        "message": problem.message,
        "remedy": problem.remedy,
        "details": problem.details,
    }


def error_from_wire(fields: dict[str, Any]) -> CoveError:
    """The `CoveError` that was sent; by code, never by class path."""
    code = str(fields.get("code", "INTERNAL_ERROR"))
    details = fields.get("details")
    return definition_of(code).exception(
        code,
        str(fields.get("message", "The host failed.")),
        remedy=str(fields.get("remedy", "")),
        details=details if isinstance(details, dict) else {},  # pyright: ignore[reportUnknownArgumentType]
    )


def invalid(problem: pydantic.ValidationError) -> CoveError:
    """For a request whose arguments do not fit; what they hold is not repeated."""
    first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])[:200]
    return error("INVALID_REQUEST", f"The host daemon refuses the arguments: {name}: {first['msg'][:300]}")
