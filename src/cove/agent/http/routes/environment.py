"""`/env`: variables of the whole sandbox. They are never masked: clients write back what they read."""

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.clock import timestamp
from cove.agent.http.answers import model_answer
from cove.agent.http.body import read_model
from cove.agent.http.errors import invalid_body
from cove.agent.state import state_of
from cove.models.environment import EnvironmentAnswer, EnvironmentChange, EnvVars

_VARIABLES: TypeAdapter[dict[str, str]] = TypeAdapter(EnvVars)


async def environment(request: Request) -> Response:
    """Read, replace, merge or clear the variables; each answers with what holds then."""
    variables = state_of(request).variables
    match request.method:
        case "PUT":
            variables.replace((await read_model(request, EnvironmentChange)).env_vars)
        case "PATCH":
            change = (await read_model(request, EnvironmentChange)).env_vars
            _check({**variables.get(), **change})
            variables.merge(change)
        case "DELETE":
            variables.clear()
        case _:
            pass
    held = variables.get()
    return model_answer(EnvironmentAnswer(env_vars=held, count=len(held), timestamp=timestamp()))


def _check(merged: dict[str, str]) -> None:
    try:
        _VARIABLES.validate_python(merged)
    except ValidationError as failure:
        raise invalid_body(failure) from None


ROUTES = (Route("/env", environment, methods=["GET", "PUT", "PATCH", "DELETE"]),)
