"""What the egress program answers the host daemon."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cove.egress import wire
from cove.egress.program import EgressProgram
from cove.egress.resolving import Upstream
from cove.egress.termination import Termination

pytestmark = pytest.mark.anyio

_SECONDS = 20.0


@pytest.fixture
async def caller(short_dir: Path) -> AsyncIterator[socket.socket]:
    program = EgressProgram(Upstream(("192.0.2.53",)), Termination())
    with wire.new_socket() as listener, wire.new_socket() as caller:
        listener.bind(str(short_dir / wire.SOCKET_NAME))
        running = asyncio.create_task(program.run(listener))
        await asyncio.sleep(0)
        caller.connect(str(short_dir / wire.SOCKET_NAME))
        yield caller
        program.end()
        async with asyncio.timeout(_SECONDS):
            await running


async def _answer(caller: socket.socket, **message: Any) -> dict[str, Any]:
    async with asyncio.timeout(_SECONDS):
        await wire.send(caller, message)
        answer, _ = await wire.receive(caller)
    return answer


async def test_calls_that_cannot_be_are_told_without_what_they_hold(caller: socket.socket) -> None:
    given = {"name": "A", "placeholder": "x", "hosts": ["a.example"], "places": ["nowhere"], "value": "held-value\n"}
    wrong = await _answer(caller, call="secrets", sandbox="one", secrets=[given])
    assert "0.places.0: Input should be 'headers'" in wrong["error"]
    assert "0.value: " in wrong["error"]
    assert "held-value" not in wrong["error"]
    key = "-----BEGIN PRIVATE KEY-----\nheld-key\n-----END PRIVATE KEY-----\n"
    no_authority = await _answer(caller, call="authority", certificate="", key=key)
    assert "not a call" in no_authority["error"]
    assert "held-key" not in no_authority["error"]
    fine = {**given, "places": ["headers"], "value": "held-value"}
    assert await _answer(caller, call="secrets", sandbox="one", secrets=[fine]) == {"ok": None}
    assert await _answer(caller, call="list") == {"ok": []}
