"""MCP clients that cost next to nothing, so that what is measured is the server: JSON over stdio and over HTTP."""

import contextlib
import http.client
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from benchmarks.serving import clean_environment
from benchmarks.yardstick import BrokenProgramError

REVISION: Final = "2026-07-28"
_SECONDS: Final = 60.0
_PIECE: Final = 1 << 20
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": REVISION,
    "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class McpClient(Protocol):
    """Something that speaks the stateless revision."""

    @property
    def name(self) -> str:
        """As the report calls the transport."""
        ...

    def request(self, method: str, **params: Any) -> bytes:
        """The answer to a request, a JSON-RPC message."""
        ...


def call_tool(client: McpClient, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a tool answered.

    Raises:
        BrokenProgramError: an error.
    """
    answer = json.loads(client.request("tools/call", name=name, arguments=arguments))
    result = answer.get("result")
    if result is None or result.get("isError"):
        raise BrokenProgramError(f"{name}: {json.dumps(answer)[:500]}")
    return result["structuredContent"]


class StdioClient:
    """`cove mcp`, started by this client."""

    name = "stdio"

    def __init__(self, data_dir: Path, *options: str) -> None:
        self._id = 0
        self._held = b""
        script = Path(sys.executable).with_name("cove")
        self._process = subprocess.Popen(
            [str(script), "mcp", "--data-dir", str(data_dir), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
        )

    def request(self, method: str, **params: Any) -> bytes:
        """Write a line, read the line with the answer."""
        self._id += 1
        message = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": {**params, "_meta": _META}}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()
        while json.loads(line := self._line()).get("id") != self._id:
            pass
        return line

    def close(self) -> None:
        """Close its input, and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_SECONDS)
        self._process.stdout.close()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + _SECONDS
        while b"\n" not in self._held:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(descriptor, _PIECE) if ready else b""
            if not piece:
                raise BrokenProgramError("`cove mcp` did not answer.")
            self._held += piece
        line, _, self._held = self._held.partition(b"\n")
        return line


class HttpClient:
    """`/mcp` of a server, on one connection that is kept alive."""

    name = "HTTP"

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_SECONDS)

    def request(self, method: str, **params: Any) -> bytes:
        """Send a request as clients do, and take the answer in either form."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": _META}})
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": REVISION,
            "Mcp-Method": method,
            **({"Mcp-Name": params["name"]} if "name" in params else {}),
        }
        self._connection.request("POST", "/mcp", body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != http.client.OK:
            raise BrokenProgramError(f"{method}: {answer.status} {content[:300].decode(errors='replace')}")
        events = [line.removeprefix(b"data:") for line in content.splitlines() if line.startswith(b"data:")]
        return events[-1] if events else content

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextlib.contextmanager
def over_stdio(data_dir: Path, *options: str) -> Generator[StdioClient]:
    """A `cove mcp` for the block."""
    with contextlib.closing(StdioClient(data_dir, *options)) as client:
        yield client


@contextlib.contextmanager
def over_http(url: str) -> Generator[HttpClient]:
    """A connection for the block."""
    with contextlib.closing(HttpClient(url)) as client:
        yield client
