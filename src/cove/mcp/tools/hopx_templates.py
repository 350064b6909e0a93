"""Templates, and whether the server is well (contract section 5)."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from cove.mcp.bounds import fitting
from cove.mcp.tool import Answer, AnyTool, Arguments, Call, Effect, Result, Tool
from cove.mcp.tools.hopx_arguments import Number, Template
from cove.models.errors import error
from cove.models.scopes import Scope
from cove.models.templates import TemplateInfo

_FIELDS = "id,name,description,category,language"
_EVERYTHING = "all"


class ListArguments(Arguments):
    """Of `list_templates`."""

    limit: Annotated[int, Field(ge=1, le=1000), Number] = 10
    fields: str = Field(default=_FIELDS, description="Names with commas, or 'all'.")


class ListResult(Result):
    """Of `list_templates`."""

    data: list[dict[str, Any]]
    count: int
    fields: list[str] = Field(serialization_alias="_fields")
    note: str = Field(serialization_alias="_note")


class TemplateArguments(Arguments):
    """Of `get_template`."""

    name: Template = Field(description="Name or id.")


class TemplateResult(Result):
    """Of `get_template`."""

    model_config = ConfigDict(extra="allow")

    id: str
    name: str
    description: str | None = None


class HealthResult(Result):
    """Of `health`."""

    model_config = ConfigDict(extra="allow")

    status: str


class NoArguments(Arguments):
    """Of tools that take none."""


async def list_templates(call: Call, arguments: ListArguments) -> Answer:
    """What sandboxes can be made of."""
    names = _field_names(arguments.fields)
    found = await call.caller.control.templates()
    rows = fitting(
        template.model_dump(mode="json", include=set(names), exclude_none=True) for template in found[: arguments.limit]
    )
    note = f"{len(rows)} of {len(found)} templates; fields='all' and limit show more."
    return Answer(ListResult(data=rows, count=len(rows), fields=names, note=note))


def _field_names(text: str) -> list[str]:
    known = [name for name in TemplateInfo.model_fields if name not in ("object", "request_id")]
    if text.strip().lower() == _EVERYTHING:
        return known
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise error(
            "INVALID_REQUEST",
            f"fields: {', '.join(unknown)[:100]!r} is no field of a template." if unknown else "fields: none is named.",
            remedy=f"There are: all, {', '.join(known)}.",
        )
    return names


async def get_template(call: Call, arguments: TemplateArguments) -> Answer:
    """One of them."""
    template = await call.caller.control.template(arguments.name)
    return Answer(template.model_dump(mode="json", exclude_none=True, exclude={"object", "request_id"}))


async def health(call: Call, arguments: NoArguments) -> Answer:
    """What the server says of itself."""
    found = await call.caller.control.health()
    return Answer({"status": "ok", **{name: value for name, value in found.items() if name != "request_id"}})


TOOLS: tuple[AnyTool, ...] = (
    Tool(
        name="list_templates",
        title="List templates",
        description="Templates that sandboxes are made of.",
        arguments=ListArguments,
        result=ListResult,
        effect=Effect.READS,
        idempotent=True,
        scope=Scope.READ,
        run=list_templates,
    ),
    Tool(
        name="get_template",
        title="Get a template",
        description="One template with everything about it.",
        arguments=TemplateArguments,
        result=TemplateResult,
        effect=Effect.READS,
        idempotent=True,
        scope=Scope.READ,
        run=get_template,
    ),
    Tool(
        name="health",
        title="Server health",
        description="Whether the server of the sandboxes is well.",
        arguments=NoArguments,
        result=HealthResult,
        effect=Effect.READS,
        idempotent=True,
        scope=Scope.READ,
        run=health,
    ),
)
