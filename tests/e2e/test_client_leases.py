"""Client leases against a real server: however the client goes, nothing of its sandboxes is left."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, clean_environment, until

from cove.models.client_leases import LEASE_PATH
from cove.sdk import AsyncControlPlane, AsyncSandbox

LEFT_SECONDS = 2.0
Serve = Callable[..., RunningServer]

CLIENT = """
import asyncio, sys
from cove.sdk import AsyncControlPlane

async def main():
    async with AsyncControlPlane(base_url=sys.argv[1]) as control, control.lease() as leased:
        made = await asyncio.gather(*(leased.create("base", timeout_seconds=300) for _ in range(2)))
        print(*(each.id for each in made), flush=True)
        await leased.wait_lost()

asyncio.run(main())
"""


@contextmanager
def client_process(server: RunningServer) -> Generator[tuple["subprocess.Popen[str]", list[str]]]:
    """A program with a lease, and the ids of its sandboxes."""
    command = [sys.executable, "-c", CLIENT, server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment()) as process:
        try:
            assert process.stdout
            ids = process.stdout.readline().split()
            assert len(ids) == 2
            yield process, ids
        finally:
            process.kill()


def expect_nothing_left(server: RunningServer, ids: list[str], end: Callable[[], object]) -> float:
    """Seconds from `end` until nothing of the sandboxes is on the machine."""
    traces = [server.traces(sandbox_id) for sandbox_id in ids]
    started = time.monotonic()
    end()
    until(lambda: not [left for trace in traces for left in trace.present()], seconds=LEFT_SECONDS, what="all is gone")
    return time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_client_that_dies_takes_its_sandboxes_along(server: RunningServer, number: signal.Signals) -> None:
    with client_process(server) as (process, ids), client_process(server) as (other, others):
        seconds = expect_nothing_left(server, ids, lambda: os.kill(process.pid, number))
        assert seconds < LEFT_SECONDS
        assert other.poll() is None
        assert all(server.traces(sandbox_id).present() for sandbox_id in others)


def raw_lease(server: RunningServer) -> tuple[socket.socket, str]:
    """A connection with an open lease, and the lease's key."""
    parts = urlsplit(server.url)
    assert parts.hostname and parts.port
    connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
    connection.sendall(f"POST {LEASE_PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 0\r\n\r\n".encode())
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    opened = json.loads(response.readline())
    return connection, opened["api_key"]


def half_close(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


@pytest.mark.parametrize("end", [half_close, reset, socket.socket.close])
def test_however_the_connection_ends(
    server: RunningServer, api: httpx2.Client, end: Callable[[socket.socket], None]
) -> None:
    connection, key = raw_lease(server)
    with connection:
        headers = {"X-API-Key": key}
        made = api.post("/v1/sandboxes", json={"template_name": "base", "timeout_seconds": 300}, headers=headers)
        assert made.status_code == 201, made.text
        expect_nothing_left(server, [made.json()["id"]], lambda: end(connection))
        assert api.get("/v1/sandboxes", headers=headers).status_code == 401


@pytest.mark.anyio
async def test_the_sdk_holds_a_lease_for_a_block(server: RunningServer) -> None:
    async with AsyncControlPlane(base_url=server.url) as control:
        async with control.lease() as leased:
            info = await leased.create("base", name="held", timeout_seconds=300)
            trace = server.traces(info.id)
            sandbox = AsyncSandbox(info, leased)
            assert (await sandbox.commands.run("echo hi")).stdout == "hi\n"
            assert [each.name async for each in leased.sandboxes(name="held")] == ["held"]
            assert not leased.is_lost
        assert leased.is_lost
        until(lambda: not trace.present(), seconds=LEFT_SECONDS, what="the sandbox has ended with the block")


@pytest.mark.anyio
async def test_namespaces_through_the_sdk(server: RunningServer) -> None:
    async with AsyncSandbox.create(
        "base", name="there", namespace="Team_A", base_url=server.url, timeout_seconds=300
    ) as sandbox:
        assert (sandbox.info.name, sandbox.info.namespace) == ("there", "Team_A")
        assert (await sandbox.commands.run("echo hi")).stdout == "hi\n"
        found = await AsyncSandbox.list(name="there", namespace="Team_A", base_url=server.url)
        everywhere = await AsyncSandbox.list(name="there", namespace="*", base_url=server.url)
        at_home = await AsyncSandbox.list(name="there", base_url=server.url)
        assert ([each.sandbox_id for each in found], at_home) == ([sandbox.sandbox_id], [])
        assert [each.sandbox_id for each in everywhere] == [sandbox.sandbox_id]
        again = await AsyncSandbox.connect(sandbox.sandbox_id, namespace="Team_A", base_url=server.url)
        for each in (*found, *everywhere, again):
            await each.aclose()


def test_servers_that_end_and_servers_that_are_killed(serve: Serve) -> None:
    first = serve("--keep-sandboxes")
    with client_process(first) as (process, ids):
        traces = [first.traces(sandbox_id) for sandbox_id in ids]
        first.kill()
        assert process.wait(10) == 0  # it noticed that the lease was lost
        assert any(trace.present() for trace in traces)
    second = serve("--keep-sandboxes")
    until(
        lambda: not [left for trace in traces for left in trace.present()],
        seconds=5,
        what="leases of a dead server are ended by the next",
    )
    with client_process(second) as (process, ids):
        started = time.monotonic()
        seconds = expect_nothing_left_after_stop(second, ids)
        assert process.wait(10) == 0
        assert seconds < 8, f"a stop took {time.monotonic() - started:.1f} s: it waited for the lease"


def expect_nothing_left_after_stop(server: RunningServer, ids: list[str]) -> float:
    traces = [server.traces(sandbox_id) for sandbox_id in ids]
    started = time.monotonic()
    server.stop()
    took = time.monotonic() - started
    left: list[Any] = [left for trace in traces for left in trace.present()]
    assert not left
    return took
