"""The agent's application: all routes, one state, one boundary around them."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.engine import Engine, Variables
from cove.agent.execution.reaper import Reaper
from cove.agent.http.boundary import Boundary
from cove.agent.http.routes import (
    absent,
    archives,
    background,
    environment,
    events,
    execution,
    files,
    metrics,
    streams,
    system,
    terminal,
    watch,
)
from cove.agent.http.traffic import Traffic
from cove.agent.http.websocket_routes import WebSockets
from cove.agent.metrics import ResourceUsage
from cove.agent.state import AgentState
from cove.models.agent import AgentBoot

# Built when the module is imported, which is before the fork. The most frequent come first: the search is linear.
ROUTES: tuple[Route, ...] = (
    *execution.ROUTES,
    *background.ROUTES,
    *events.ROUTES,
    *files.ROUTES,
    *archives.ROUTES,
    *system.ROUTES,
    *environment.ROUTES,
    *metrics.ROUTES,
    *streams.ROUTES,
    *terminal.ROUTES,
    *watch.ROUTES,
    *absent.ROUTES,
)
WEBSOCKETS = (*streams.WEBSOCKETS, *terminal.WEBSOCKETS, *watch.WEBSOCKETS)
_PATHS = frozenset(route.path for route in ROUTES if "{" not in route.path)


def build_app(
    boot: AgentBoot,
    executor: Engine,
    environment: Variables,
    *,
    reaper: Reaper | None = None,
    skeleton: Starlette | None = None,
) -> Starlette:
    """The application for one sandbox. It starts nothing; the caller starts and closes `executor`.

    Args:
        reaper: the one that `executor` uses: a process can have only one.
        skeleton: is completed instead of a new one being built.
    """
    app = build_skeleton() if skeleton is None else skeleton
    app.state.agent = AgentState(
        boot=boot,
        engine=executor,
        variables=environment,
        traffic=Traffic(_PATHS),
        usage=ResourceUsage(boot.limits, boot.workspace),
        sockets=WebSockets(WEBSOCKETS),
        reaper=reaper or Reaper(),
    )
    return app


def build_skeleton() -> Starlette:
    """The part of the application that is the same in every sandbox."""
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Boundary)],
        exception_handlers={HTTPException: _to_the_boundary},
    )
    # A redirect would lose the body of a POST, and half of the clients do not follow any.
    app.router.redirect_slashes = False
    app.middleware_stack = app.build_middleware_stack()
    return app


async def _to_the_boundary(request: Request, failure: Exception) -> Response:
    raise failure
