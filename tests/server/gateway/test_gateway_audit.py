"""What the audit log is told of requests to agents: what ran, opened or changed something, in whose name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest
from starlette.routing import Route, WebSocketRoute

from cove.agent.http import routes
from cove.server.gateway.audited import audited

if TYPE_CHECKING:
    from conftest import Harness

pytestmark = pytest.mark.anyio

A = "1763382095aaaaaaaa"
B = "1763382095bbbbbbbb"
TOKEN = f"Authorization: Bearer ok.{A}.sig\r\n"


async def test_what_is_passed_on_is_told_in_the_name_of_the_tokens_key(gw: Harness) -> None:
    await gw.answering(gw.agent(A), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    for request in (
        f"POST /sandboxes/{A}/execute?x=1 HTTP/1.1\r\nHost: localhost\r\n{TOKEN}Content-Length: 4\r\n\r\n1+1;",
        f"GET /sandboxes/{A}/files/list HTTP/1.1\r\nHost: localhost\r\n{TOKEN}\r\n",
        f"POST /sandboxes/{A}/execute HTTP/1.1\r\nHost: localhost\r\n\r\n",
        f"POST /sandboxes/{B}/execute HTTP/1.1\r\nHost: localhost\r\n{TOKEN}\r\n",
        f"POST /sandboxes/{A}/%65xecute HTTP/1.1\r\nHost: localhost\r\n{TOKEN}\r\n",
    ):
        await gw.ask(request.encode())
    assert gw.notes.passed == [
        (A, "the-key", "code.run", "POST /execute", 4),
        (A, "the-key", "code.run", "POST /execute", 0),
    ]
    assert gw.notes.turned_away == [
        (f"POST /sandboxes/{A}/execute", "UNAUTHORIZED"),
        (f"POST /sandboxes/{B}/execute", "FORBIDDEN"),
    ]


def test_every_route_of_the_agent_that_changes_something_has_a_name() -> None:
    modules = [
        importlib.import_module(f"{routes.__name__}.{each.name}") for each in pkgutil.iter_modules(routes.__path__)
    ]
    of_http: list[Route] = [route for module in modules for route in getattr(module, "ROUTES", ())]
    sockets: list[WebSocketRoute] = [route for module in modules for route in getattr(module, "WEBSOCKETS", ())]
    assert len(of_http) > 30
    assert len(sockets) > 4
    asked = {
        (method, route.path.replace("{process_id}", "proc_1").replace("{name}", "main"))
        for route in of_http
        for method in route.methods or ()
        if method not in ("GET", "HEAD", "OPTIONS")
    }
    named = {(method, path): audited(method.encode(), path.encode()) for method, path in asked}
    others = {path for (_, path), what in named.items() if what is not None and what.action == "agent.changed"}
    assert others == {"/rehearsal", "/cache/clear", "/desktop/{rest:path}"}
    assert None not in named.values()
    assert {route.path for route in sockets if audited(b"GET", route.path.encode()) is None} == {"/files/watch"}
    assert audited(b"GET", b"/files/read?path=/x") is None
    assert audited(b"GET", b"/%74erminal?cols=80") == audited(b"GET", b"/terminal")
