"""`POST /v1/sandboxes/{id}/volumes`: a directory of this machine, copied into a sandbox."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from cove.core.audit import AuditTrail
from cove.core.clock import Clock
from cove.core.directory import LiveDirectory
from cove.core.lifecycle import Lifecycle
from cove.core.states import not_running
from cove.models.errors import CoveError, error
from cove.models.files import ArchiveExtracted
from cove.models.volumes import CopyVolume, VolumeCopied
from cove.server.api.answers import answer
from cove.server.api.context import principal_of, request_id_of
from cove.server.host_directories import HostDirectories

_AT_ONCE = 4
_SECONDS = 300.0
_STALL_SECONDS = 60.0
_MAX_ANSWER_BYTES = 64 * 1024


def volume_routes(
    lifecycle: Lifecycle, directory: LiveDirectory, host: HostDirectories, audit: AuditTrail, *, clock: Clock
) -> APIRouter:
    """The route, over these objects."""
    router, slots = APIRouter(tags=["sandboxes"]), asyncio.Semaphore(_AT_ONCE)

    @router.post("/v1/sandboxes/{sandbox_id}/volumes", response_model=VolumeCopied)
    async def copy_volume(request: Request, sandbox_id: str, body: CopyVolume) -> Response:
        """Copy a directory that the operator of the server allowed into the sandbox. Changes do not come back."""
        principal = principal_of(request.scope)
        row = await lifecycle.get(principal, sandbox_id)
        socket = directory.socket_of(row.id)
        if socket is None:
            raise not_running(row.id, directory.state_of(row.id))
        pieces = host.archive(body.host_path)
        async with slots, asyncio.timeout(_SECONDS):
            copied = await _put(socket, body.path, pieces)
        facts = {"host_path": body.host_path, "bytes": copied.bytes}
        audit.note(principal.event("sandbox.volume_copied", row.id, at=clock(), details=facts))
        return answer(
            VolumeCopied(
                id=row.id,
                path=copied.path,
                entries=copied.entries,
                bytes=copied.bytes,
                request_id=request_id_of(request.scope),
            )
        )

    return router


async def _put(socket: Path, path: str, pieces: Generator[bytes]) -> ArchiveExtracted:
    """`PUT /files/archive` of the agent, which is not trusted: of its answer little is read."""
    failures: list[CoveError] = []

    async def content() -> AsyncGenerator[bytes]:
        try:
            while piece := await asyncio.to_thread(next, pieces, b""):
                yield piece
        except CoveError as failure:
            failures.append(failure)
            raise

    transport = httpx2.AsyncHTTPTransport(uds=str(socket), verify=False)
    url = f"http://agent/files/archive?path={quote(path)}"
    headers = {"Content-Type": "application/x-tar"}
    try:
        async with (
            httpx2.AsyncClient(transport=transport, timeout=_STALL_SECONDS, trust_env=False) as client,
            client.stream("PUT", url, content=content(), headers=headers) as response,
        ):
            return _copied(response.status_code, await _whole(response))
    except httpx2.HTTPError as problem:
        if failures:
            raise failures[0] from None
        raise error("AGENT_UNREACHABLE", f"The sandbox took no archive ({type(problem).__name__}).") from problem
    finally:
        with suppress(ValueError):  # a thread still reads; the descriptors are closed when it has done so
            pieces.close()


async def _whole(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            raise error("AGENT_UNREACHABLE", "The sandbox's answer is too long.")
    return bytes(body)


def _copied(status: int, body: bytes) -> ArchiveExtracted:
    try:
        if status == 200:
            return ArchiveExtracted.model_validate_json(body)
        fields: Any = json.loads(body)
        message = str(fields["message"])[:300]
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError):
        message = "no reason was given"
    raise error("INVALID_PATH", f"volumes: the sandbox refused the directory: {message}", field="volumes")
