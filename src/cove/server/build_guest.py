"""What a template's build asks of its sandbox's agent, over the agent's unix socket. Answers are bounded."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from cove.models.errors import CoveError, error
from cove.models.execution import CommandRequest, CommandResult
from cove.models.hosts import SandboxRecord
from cove.models.processes import BackgroundCommand

_MARGIN_SECONDS: Final = 15.0
_STALL_SECONDS: Final = 60.0
_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024
_START_NAME: Final = "start"


class AgentBuildGuest:
    """Implements the core's `BuildGuest`."""

    async def run(self, record: SandboxRecord, command: CommandRequest) -> CommandResult:
        """`POST /commands/run`."""
        body = command.model_dump_json(exclude_none=True).encode()
        answer = await self._answered(record, "/commands/run", body, seconds=command.timeout + _MARGIN_SECONDS)
        try:
            return CommandResult.model_validate_json(answer)
        except ValidationError:
            raise _unreachable(record, "its answer is not the result of a command") from None

    async def start(self, record: SandboxRecord, command: str) -> None:
        """`POST /commands/background`."""
        body = BackgroundCommand(command=command, name=_START_NAME).model_dump_json(exclude_none=True).encode()
        await self._answered(record, "/commands/background", body, seconds=_MARGIN_SECONDS)

    async def upload(self, record: SandboxRecord, source: Path, target: str) -> None:
        """`POST /files/upload`, streamed."""
        boundary = "cove-build-upload"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="path"\r\n\r\n{target}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="upload"\r\n\r\n'
        )
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        content = _form(head.encode(), source, f"\r\n--{boundary}--\r\n".encode())
        async with self._request(record, "POST", "/files/upload", content, kind) as response:
            await _whole(record, response)

    async def capture(self, record: SandboxRecord, directory: str, target: Path, *, max_bytes: int) -> None:
        """`GET /files/archive`, streamed."""
        async with self._request(record, "GET", f"/files/archive?path={quote(directory)}", b"", {}) as response:
            if response.status_code != 200:
                await _whole(record, response)
            with target.open("wb") as file:
                async for piece in response.aiter_raw():
                    max_bytes -= len(piece)
                    if max_bytes < 0:
                        raise error("TEMPLATE_BUILD_FAILED", "The build left more than the disk that was asked for.")
                    await asyncio.to_thread(file.write, piece)

    async def _answered(self, record: SandboxRecord, path: str, body: bytes, *, seconds: float) -> bytes:
        kind = {"Content-Type": "application/json"}
        async with self._request(record, "POST", path, body, kind, seconds=seconds) as response:
            return await _whole(record, response)

    @asynccontextmanager
    async def _request(
        self,
        record: SandboxRecord,
        method: str,
        path: str,
        content: "bytes | AsyncIterator[bytes]",
        headers: dict[str, str],
        *,
        seconds: float = _STALL_SECONDS,
    ) -> AsyncGenerator[httpx2.Response]:
        """Neither proxies nor redirects nor cookies: the other side is a sandbox."""
        # No TLS on a unix socket: without this the machine's authorities are read each time, on the event loop.
        transport = httpx2.AsyncHTTPTransport(uds=record.socket_path, verify=False)
        limits = httpx2.Timeout(_STALL_SECONDS, read=seconds)
        try:
            async with (
                httpx2.AsyncClient(transport=transport, timeout=limits, trust_env=False) as client,
                client.stream(method, f"http://agent{path}", content=content, headers=headers) as response,
            ):
                yield response
        except httpx2.HTTPError as failure:
            raise _unreachable(record, f"{type(failure).__name__} at {path.partition('?')[0]}") from failure


async def _form(head: bytes, source: Path, tail: bytes) -> AsyncIterator[bytes]:
    yield head
    with source.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece
    yield tail


async def _whole(record: SandboxRecord, response: httpx2.Response) -> bytes:
    """The body of a success."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > _MAX_ANSWER_BYTES:
            raise _unreachable(record, "its answer is too large")
    if response.status_code != 200:
        raise error("TEMPLATE_BUILD_FAILED", f"The sandbox of the build refused: {_message(bytes(body))}")
    return bytes(body)


def _message(body: bytes) -> str:
    try:
        fields: Any = json.loads(body)
        return str(fields["message"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "no reason was given"


def _unreachable(record: SandboxRecord, why: str) -> CoveError:
    return error("AGENT_UNREACHABLE", f"The agent of {record.sandbox_id} failed: {why}.")
