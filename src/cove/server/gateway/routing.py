"""Where a request goes, as a pure function of its head.

An agent is addressed by path (`/sandboxes/<id>/...`), by host name (`7777-<id>.<domain>`), or by nothing but its token:
some WebSocket clients keep only scheme and host of an address. Whatever the address, a request reaches a sandbox only
with a token for that very sandbox, and ids are taken from raw bytes by exact match: an encoded or dotted path names
none.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cove.core.ports import AgentDirectory
from cove.core.states import not_running
from cove.models.agent import AGENT_PORT
from cove.models.errors import CoveError
from cove.server.gateway.heads import RequestHead
from cove.server.gateway.refusals import Plane, Refuse, refuse, refuse_error
from cove.server.gateway.settings import GatewaySettings

AGENT_PREFIXES = (
    b"/execute",
    b"/files",
    b"/commands",
    b"/env",
    b"/terminal",
    b"/processes",
    b"/metrics/snapshot",
    b"/metrics/prometheus",
    b"/info",
    b"/ping",
    b"/system",
    b"/cache",
    b"/jupyter",
    b"/desktop",
    b"/stream",
)
CONTROL_PREFIXES = (b"/v1", b"/docs", b"/redoc", b"/openapi.json", b"/mcp", b"/api/v1", b"/auth")

_PREVIEW_MARK = b"/.vms.hopx.dev"
_IN_HOST = re.compile(r"([1-9][0-9]{0,4})-([0-9]{10}[a-z0-9]{8})\..+")
_IN_PATH = re.compile(rb"/sandboxes/([0-9]{10}[a-z0-9]{8})(?=[/?]|\Z)")
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/=-]{1,8192})")
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")
_REFUSED_METHODS = (b"CONNECT", b"TRACE")


class TokenVerifier(Protocol):
    """Knows the tokens that open agents."""

    def verify(self, token: str) -> str:
        """Id of the sandbox that `token` is for.

        Raises:
            CoveError: TOKEN_EXPIRED, UNAUTHORIZED.
        """
        ...


@dataclass(frozen=True, slots=True)
class ToControlPlane:
    """Answered by the control plane; the target is unchanged."""

    target: bytes


@dataclass(frozen=True, slots=True)
class ToAgent:
    """Answered by one sandbox's agent, under a target without the address prefix."""

    sandbox_id: str
    socket_path: Path
    target: bytes


Route = ToControlPlane | ToAgent | Refuse


def decide(head: RequestHead, settings: GatewaySettings, tokens: TokenVerifier, directory: AgentDirectory) -> Route:
    """The one place a request is routed."""
    if head.method in _REFUSED_METHODS:
        return refuse(
            "METHOD_NOT_ALLOWED",
            f"{head.method.decode()} is not served here.",
            Plane.CONTROL,
            remedy="Send GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.",
        )
    in_host = _IN_HOST.fullmatch(head.hostname)
    if in_host is None and not _host_is_served(head.hostname, settings):
        return refuse(
            "FORBIDDEN",
            "The host name of this request is not one that the server serves.",
            Plane.CONTROL,
            remedy="Use http://127.0.0.1 or http://localhost, or start the server with this name as an allowed host.",
        )
    if head.target == b"*":
        return ToControlPlane(head.target)
    agents = _AgentRouter(head, tokens, directory)
    if in_host is not None:
        return agents.by_host(int(in_host[1]), in_host[2])
    if head.path.startswith(b"/sandboxes/"):
        return agents.by_path()
    return agents.by_token()


def _host_is_served(hostname: str, settings: GatewaySettings) -> bool:
    # Browsers always send Host, so a request without one is not a rebinding attack.
    allowed = settings.allowed_hosts
    return allowed is None or hostname in ("", *allowed) or _LOOPBACK.fullmatch(hostname) is not None


class _AgentRouter:
    """One request that may be for an agent."""

    def __init__(self, head: RequestHead, tokens: TokenVerifier, directory: AgentDirectory) -> None:
        self._head = head
        self._tokens = tokens
        self._directory = directory

    def by_host(self, port: int, sandbox_id: str) -> Route:
        """`{port}-{id}.<domain>`: the agent's port, or a program's (preview traffic, which is not served yet)."""
        if port != AGENT_PORT:
            remedy = f"The agent is at port {AGENT_PORT}."
            return self._refuse("NOT_IMPLEMENTED", "Preview addresses are not served yet.", remedy=remedy)
        target = self._head.target
        if self._head.path == _PREVIEW_MARK or self._head.path.startswith(_PREVIEW_MARK + b"/"):
            target = _rooted(target.removeprefix(_PREVIEW_MARK))
        return self._authorised(sandbox_id, target)

    def by_path(self) -> Route:
        """`/sandboxes/<id>/...`."""
        match = _IN_PATH.match(self._head.target)
        if match is None:
            return self._refuse("SANDBOX_NOT_FOUND", "Sandbox not found: the path holds no sandbox id.")
        return self._authorised(match[1].decode("ascii"), _rooted(self._head.target[match.end() :]))

    def by_token(self) -> Route:
        """No address: a valid agent token decides, except on the control plane's own paths."""
        path = self._head.path
        if _is_below(path, CONTROL_PREFIXES):
            return ToControlPlane(self._head.target)
        claimed = self._claimed()
        if isinstance(claimed, str):
            return self._to_agent(claimed, self._head.target)
        # /health, /metrics and / exist on both planes; without a valid agent token they are the control plane's.
        return claimed if _is_below(path, AGENT_PREFIXES) else ToControlPlane(self._head.target)

    def _authorised(self, sandbox_id: str, target: bytes) -> Route:
        claimed = self._claimed()
        if isinstance(claimed, Refuse):
            return claimed
        if claimed != sandbox_id:
            remedy = "Get a token of this one: POST /v1/sandboxes/{id}/token/refresh."
            return self._refuse("FORBIDDEN", "The token is for another sandbox.", remedy=remedy)
        return self._to_agent(sandbox_id, target)

    def _to_agent(self, sandbox_id: str, target: bytes) -> Route:
        socket_path = self._directory.socket_of(sandbox_id)
        if socket_path is None:
            why = not_running(sandbox_id, self._directory.state_of(sandbox_id))
            return refuse_error(why, Plane.AGENT, path=self._shown_path())
        return ToAgent(sandbox_id, socket_path, target)

    def _claimed(self) -> str | Refuse:
        """The sandbox id in the request's token."""
        bearer = _BEARER.fullmatch(self._head.first(b"authorization") or b"")
        if bearer is None:
            return self._refuse("UNAUTHORIZED", "This request needs the sandbox's token.")
        token = bearer[1].decode("ascii")
        if token.count(".") != 2:
            return self._refuse("UNAUTHORIZED", "The credential is not a sandbox token.")
        try:
            return self._tokens.verify(token)
        except CoveError as error:
            return refuse_error(error, Plane.AGENT, path=self._shown_path())

    def _refuse(self, code: str, message: str, *, remedy: str = "") -> Refuse:
        return refuse(code, message, Plane.AGENT, remedy=remedy, path=self._shown_path())

    def _shown_path(self) -> str:
        return self._head.path[:1024].decode("ascii", "replace")


def _rooted(target: bytes) -> bytes:
    return target if target.startswith(b"/") else b"/" + target


def _is_below(path: bytes, prefixes: tuple[bytes, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix + b"/") for prefix in prefixes)
