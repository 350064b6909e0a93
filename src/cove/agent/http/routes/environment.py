"""`/env`: variables of the whole sandbox. They are never masked: clients write back what they read."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.clock import timestamp
from cove.agent.engine import Variables
from cove.agent.http.answers import model_answer
from cove.agent.http.body import read_model
from cove.agent.state import state_of
from cove.models.environment import EnvironmentAnswer, EnvironmentChange
from cove.models.errors import error


async def environment(request: Request) -> Response:
    """Read, replace, merge or clear the variables; each answers with what holds then."""
    variables = state_of(request).variables
    match request.method:
        case "PUT":
            variables.replace((await read_model(request, EnvironmentChange)).env_vars)
        case "PATCH":
            _merge(variables, (await read_model(request, EnvironmentChange)).env_vars)
        case "DELETE":
            variables.clear()
        case _:
            pass
    held = variables.get()
    return model_answer(EnvironmentAnswer(env_vars=held, count=len(held), timestamp=timestamp()))


def _merge(variables: Variables, change: dict[str, str]) -> None:
    try:
        variables.merge(change)
    except ValueError as failure:
        # Each half was within its limits, both together are not.
        raise error("INVALID_REQUEST", f"{failure}.", remedy="Remove some first.", field="env_vars") from None


ROUTES = (Route("/env", environment, methods=["GET", "PUT", "PATCH", "DELETE"]),)
