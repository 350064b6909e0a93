"""How the tables of an agent's routes describe one of them."""

from dataclasses import dataclass, field
from typing import Any, Final

from cove.models.base import Contract

JSON: Final = "application/json"
TEXT: Final[dict[str, Any]] = {"type": "string"}
NUMBER: Final[dict[str, Any]] = {"type": "number"}
INTEGER: Final[dict[str, Any]] = {"type": "integer"}
BOOLEAN: Final[dict[str, Any]] = {"type": "boolean"}
BINARY: Final[dict[str, Any]] = {"type": "string", "format": "binary"}

Shape = type[Contract] | dict[str, Any]
"""A model of the contract, or a JSON schema."""


def record(**properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with these properties, all of them required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    """The schema of an array."""
    return {"type": "array", "items": items}


def anything(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """The schema of an object whose keys are not known, with values of one schema or of any."""
    return {"type": "object", "additionalProperties": True if values is None else values}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of the query, or of the path if the path names it."""

    name: str
    description: str
    schema: dict[str, Any]
    required: bool = False
    example: Any = None


@dataclass(frozen=True, kw_only=True)
class Body:
    """What is sent: a request's body, or a success.

    Attributes:
        example: for JSON; for other content where one fits.
    """

    shape: Shape
    example: Any = None
    content_type: str = JSON
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Socket:
    """What the two sides of a WebSocket may send, one JSON object a text frame."""

    client: tuple[type[Contract], ...]
    server: tuple[type[Contract], ...]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        name: the operation id.
        answer: None where there is no success.
        errors: codes beyond those that every operation has.
    """

    method: str
    path: str
    name: str
    description: str
    answer: Body | None = None
    body: Body | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[str, ...] = ()
    socket: Socket | None = None
    tag: str = field(kw_only=True)
