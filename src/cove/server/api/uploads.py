"""`PUT /v1/templates/uploads/<token>`: archives for builds. The link is the credential: clients send no other."""

from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cove.models.errors import error
from cove.server.api.context import request_id_of
from cove.server.uploads import UploadShelf

PREFIX: Final = "/v1/templates/uploads/"
_METHODS: Final = frozenset({"PUT", "POST"})


class UploadDoor:
    """ASGI middleware in front of authentication and of the limit for bodies: both are other ones here."""

    def __init__(self, app: ASGIApp, *, shelf: UploadShelf) -> None:
        self._app = app
        self._shelf = shelf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        if scope["method"] not in _METHODS:
            raise error("METHOD_NOT_ALLOWED", "Archives are sent with PUT.", remedy="Send PUT.")
        upload = self._shelf.open_link(scope["path"].removeprefix(PREFIX))
        await self._shelf.take(upload, _pieces(Request(scope, receive)))
        answer = JSONResponse({"success": True, "files_hash": upload.files_hash, "request_id": request_id_of(scope)})
        await answer(scope, receive, send)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect:
        return
