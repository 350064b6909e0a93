"""A control plane that waits where a person would: while a template is being built for the first time."""

import asyncio
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from cove.mcp.tool import ReportProgress
from cove.models.errors import CoveError
from cove.models.sandboxes import CreatedSandbox
from cove.sdk import AsyncControlPlane

PATIENCE_SECONDS: Final = 50.0
"""Of a whole call: assistants give up after a minute."""
_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Call:
    """The request that is being served: since when, and how its client hears how far it is."""

    began: float
    report: ReportProgress | None


_call: ContextVar[_Call | None] = ContextVar("call", default=None)


class PatientControlPlane(AsyncControlPlane):
    """As inherited, but a create waits for its template, and tells the assistant how far it is."""

    async def create(self, template: str | None = None, **options: Any) -> CreatedSandbox:
        """As inherited.

        Raises:
            CoveError: TEMPLATE_NOT_BUILT when it takes longer than an assistant waits; it says how far it is.
        """
        call = _call.get() or _Call(time.monotonic(), None)
        while True:
            try:
                return await super().create(template, **options)
            except CoveError as problem:
                if not is_being_built(problem) or time.monotonic() > call.began + PATIENCE_SECONDS:
                    raise
                if call.report is not None:
                    await call.report(float(problem.details["fraction"]), 1.0, problem.message)
            await asyncio.sleep(_PAUSE_SECONDS)


def is_being_built(problem: CoveError) -> bool:
    """Whether waiting helps."""
    return problem.code == "TEMPLATE_NOT_BUILT" and isinstance(problem.details.get("fraction"), int | float)


async def with_progress(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Middleware of the MCP server: lets what serves a request tell its client how far it is."""
    token = _call.set(_Call(time.monotonic(), ctx.session.report_progress))
    try:
        return await call_next(ctx)
    finally:
        _call.reset(token)
