"""What a tool is: its words, its shapes, what it may change, and what runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from cove.mcp.callers import Caller
from cove.models.scopes import Scope

ReportProgress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Seconds or steps done, of how many, and a line for people."""


class Arguments(BaseModel):
    """Base of what a tool takes. An argument that does not exist is refused, so that nobody believes in its effect."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Result(BaseModel):
    """Base of what a tool answers."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)


class Effect(Enum):
    """What a call may do to the things there are: the first two annotations of the protocol.

    `ADDS` makes something, or changes it in a way that loses nothing; `CHANGES` may replace or end what there is.
    """

    READS = (True, False)
    ADDS = (False, False)
    CHANGES = (False, True)

    @property
    def read_only(self) -> bool:
        """`readOnlyHint`."""
        return self.value[0]

    @property
    def destructive(self) -> bool:
        """`destructiveHint`."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Image:
    """A picture for the model to look at. `data` is base64 text."""

    data: str
    mime_type: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool answers.

    Attributes:
        structured: matches the tool's `result`; the model reads it as JSON text.
        images: shown beside it.
        meta: facts for the client's program, not for the model.
        is_error: the platform refused; set where the result's shape is needed beside that.
        text: what the model reads instead of `structured`; must say the same.
    """

    structured: BaseModel | Mapping[str, Any]
    images: tuple[Image, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_error: bool = False
    text: str | None = None

    def with_meta(self, **facts: Any) -> Self:
        """The same with more facts."""
        return replace(self, meta={**self.meta, **facts})


def plain(structured: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    """As it goes on the wire; what is None is left out."""
    if isinstance(structured, BaseModel):
        return structured.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dict(structured)


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Attributes:
        caller: who makes it.
        report: tells the client how far it is.
        wants_progress: whether the client listens to that; watching a program costs more than waiting for it.
    """

    caller: Caller
    report: ReportProgress
    wants_progress: bool = False


A = TypeVar("A", bound=Arguments)


@dataclass(frozen=True, kw_only=True)
class Tool(Generic[A]):
    """One tool.

    Attributes:
        description: what a model needs to choose and use it; no more, as every word costs context in every chat.
        arguments, result: shapes; the JSON schemas are made of them.
        effect, idempotent, open_world: the four annotations (`open_world`: it may reach beyond the sandbox).
        scope: what the caller's key must allow.
        run: does it. A `CoveError` becomes an answer with `isError`.
    """

    name: str
    title: str
    description: str
    arguments: type[A]
    result: type[BaseModel] | None
    effect: Effect
    idempotent: bool
    open_world: bool = False
    scope: Scope = Scope.EXEC
    run: Callable[[Call, A], Awaitable[Answer]]


AnyTool = Tool[Any]
