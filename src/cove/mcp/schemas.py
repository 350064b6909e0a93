"""JSON schemas that are small: they lie in the context of every chat."""

from typing import Any, cast

from pydantic import BaseModel

_NOISE = frozenset(
    {
        *("title", "additionalProperties", "examples", "pattern", "format", "contentMediaType"),
        *("minLength", "maxLength"),
    }
)
"""Keywords that help no model to fill in an argument; what is refused is refused when it comes."""

_NOISE_IN_RESULTS = frozenset({"default", "description", "enum", "items", "anyOf"})
"""A result needs no more than the names of its fields and their types."""


def schema_of(model: type[BaseModel], *, described: bool = True, mode: str = "validation") -> dict[str, Any]:
    """JSON Schema 2020-12 of `model`: references are resolved, `null` alternatives and noise left out.

    Args:
        described: with descriptions, choices and what is required; else names and types only.
        mode: `validation` for what is taken, `serialization` for what is answered.
    """
    full = model.model_json_schema(mode=cast("Any", mode), by_alias=True)
    definitions = full.pop("$defs", {})
    found = _compact(full, definitions, described=described)
    found.pop("description", None)
    if not described:
        found.pop("required", None)
    return {"type": "object", "properties": {}, **found}


def _compact(node: Any, definitions: dict[str, Any], *, described: bool) -> Any:
    if isinstance(node, list):
        return [_compact(item, definitions, described=described) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    schema = cast("dict[str, Any]", node)
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _compact({**target, **rest}, definitions, described=described)
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        if len(choices) == 1:
            return _compact({**choices[0], **rest}, definitions, described=described)
        if all(choice.keys() == {"type"} for choice in choices):
            return _compact({**rest, "type": [choice["type"] for choice in choices]}, definitions, described=described)
        schema = {**rest, "anyOf": choices}
    kept = {
        key: value
        for key, value in schema.items()
        if key not in _NOISE
        and not (key == "default" and value is None)
        and (described or key not in _NOISE_IN_RESULTS)
    }
    if isinstance(kept.get("properties"), dict):
        properties = cast("dict[str, Any]", kept["properties"])
        kept["properties"] = {
            name: _compact(value, definitions, described=described) for name, value in properties.items()
        }
        return kept
    return {key: _compact(value, definitions, described=described) for key, value in kept.items()}
