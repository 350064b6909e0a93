"""Answers straight from contract models: serialised once, not validated again."""

from pydantic import BaseModel
from starlette.responses import Response


def answer(model: BaseModel, status: int = 200) -> Response:
    """A JSON answer that carries the model."""
    return Response(model.__pydantic_serializer__.to_json(model), status, None, "application/json")
