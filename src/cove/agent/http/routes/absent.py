"""Parts of the API that this sandbox has not: answered truthfully, in the form that clients can read."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cove.agent.http.answers import json_answer
from cove.models.errors import error

_ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_DESKTOP_PROGRAMS = ["Xvfb", "x11vnc", "xdotool"]


async def desktop(request: Request) -> Response:
    """There is no display in here."""
    # Not 404 and not 5xx, and without the words "not found": clients would report a missing file, or try again.
    raise error(
        "DESKTOP_NOT_AVAILABLE",
        "This sandbox has no desktop.",
        remedy="Use a template with a desktop.",
        missing_dependencies=_DESKTOP_PROGRAMS,
    )


async def cache_stats(request: Request) -> Response:
    """Results of executions are never cached."""
    return json_answer({"hits": 0, "misses": 0, "hit_rate": 0.0, "size": 0, "count": 0, "total_cached": 0})


async def cache_clear(request: Request) -> Response:
    """Nothing to remove."""
    return json_answer({"success": True, "message": "Nothing is cached.", "entries_removed": 0})


ROUTES = (
    Route("/cache/stats", cache_stats, methods=["GET"]),
    Route("/cache/clear", cache_clear, methods=["POST"]),
    Route("/desktop/{rest:path}", desktop, methods=_ANY_METHOD),
)
