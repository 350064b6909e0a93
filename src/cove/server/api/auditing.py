"""Refused requests, for the audit log. What went well is noted where it is done."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from cove.core.audit import AuditTrail
from cove.models.errors import CoveError
from cove.server.api.context import find_principal, origin_of, refusal_of

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OF_INTEREST = frozenset(
    {
        "AUTHENTICATION_REQUIRED",
        "UNAUTHORIZED",
        "TOKEN_EXPIRED",
        "FORBIDDEN",
        "RATE_LIMIT_EXCEEDED",
        "RESOURCE_LIMIT_EXCEEDED",
    }
)
"""Of requests that only read, these refusals; of those that change something, all."""

_SUBJECT = re.compile(r"[A-Za-z0-9_.-]{1,80}")


class Auditing:
    """ASGI middleware around authentication and all that is behind it."""

    def __init__(self, app: ASGIApp, *, audit: AuditTrail) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except CoveError as failure:
            self._note(scope, failure.code)
            raise
        refusal = refusal_of(scope)
        if refusal is not None:
            self._note(scope, refusal)

    def _note(self, scope: Scope, code: str) -> None:
        if code not in _OF_INTEREST and (scope["method"] in _READING or find_principal(scope) is None):
            return
        route = f"{scope['method'][:10]} {getattr(scope.get('route'), 'path', None) or scope['path'][:100]}"
        self._audit.refused(find_principal(scope), route, _subject(scope), code, origin_of(scope))


def _subject(scope: Scope) -> str:
    """The id in the path, or nothing."""
    for value in scope.get("path_params", {}).values():
        if isinstance(value, str) and _SUBJECT.fullmatch(value):
            return value
    last = scope["path"].split("/")[3:4]
    return last[0] if last and _SUBJECT.fullmatch(last[0]) else ""
