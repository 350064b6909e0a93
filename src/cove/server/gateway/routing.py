"""Where a request goes, as a pure function of its head.

An agent is addressed by path (`/sandboxes/<id>/...`), by host name (`7777-<id>.<domain>`), or by nothing but its token:
some WebSocket clients keep only scheme and host of an address. Whatever the address, a request reaches an agent only
with a token for that very sandbox.

Programs are addressed by host name (`<port>-<id>.<domain>`) or by path (`/sandboxes/<id>/ports/<port>/...`), and answer
whoever knows the id, unless the sandbox or the settings ask for a link or the token there too.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cove.core.ports import AgentDirectory
from cove.core.states import not_running
from cove.core.tokens import AgentClaims
from cove.models.agent import AGENT_PORT
from cove.models.errors import CoveError
from cove.models.previews import PreviewAccess
from cove.server.gateway.addresses import in_host, in_path, looks_like_port, without_vendor_path
from cove.server.gateway.heads import RequestHead
from cove.server.gateway.passage import AGENT, CONTROL_PLANE, PORT_BY_HOST, PORT_BY_PATH, Passage
from cove.server.gateway.refusals import Plane, Refuse, exchange, redirect, refuse, refuse_error
from cove.server.gateway.settings import GatewaySettings
from cove.server.gateway.upstreams import Destination
from cove.server.gateway.visitors import HOW_TO_GET_IN, LetIn, TokenVerifier, Visitor, cookie_for

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
CONTROL_PREFIXES = (b"/v1", b"/docs", b"/redoc", b"/openapi.json", b"/mcp", b"/api/v1", b"/auth", b"/.well-known")

UPLOADS = b"/v1/templates/uploads/"
"""Archives for builds: bodies that are large, for the control plane."""

CARRYING_CODE = (b"/mcp", b"/mcp/", b"/api/v1/rpc")
"""Tool calls and the like: bodies that may hold a whole file."""

_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/=-]{1,8192})")
_API_KEY = re.compile(rb"(?:[Bb][Ee][Aa][Rr][Ee][Rr] +)?(?:hopx_live_|msb_|cove_delegated_).*", re.DOTALL)
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")
_CREDENTIAL_FIELDS = (b"authorization", b"x-api-key")
_ASYNC_PATH = b"/execute/async"
_NOTHING = frozenset[bytes]()
_REFUSED_METHODS = (b"CONNECT", b"TRACE")


class Onward(Protocol):
    """A request that goes on to an upstream.

    Attributes:
        target: for the upstream, without what was the address.
    """

    @property
    def target(self) -> bytes:
        """For the upstream."""
        ...

    @property
    def passage(self) -> Passage:
        """What of heads passes."""
        ...

    @property
    def prefix(self) -> bytes:
        """What was taken off the target and has to stand before paths that the upstream names; perhaps nothing."""
        ...

    @property
    def withheld(self) -> frozenset[bytes]:
        """Further fields of this very request that do not pass."""
        ...

    @property
    def added(self) -> tuple[bytes, ...]:
        """Field lines that the upstream gets instead."""
        ...


# Routes are made for each request, and never changed; frozen ones would take three times as long to make.
@dataclass(slots=True)
class ToControlPlane:
    """Answered by the control plane; the target is unchanged, except for asynchronous executions.

    Attributes:
        plane: whose error form the client expects.
    """

    target: bytes
    plane: Plane = Plane.CONTROL
    passage = CONTROL_PLANE
    prefix = b""
    withheld = _NOTHING
    added = ()


@dataclass(slots=True)
class ToAgent:
    """Answered by one sandbox's agent, under a target without the address prefix.

    Attributes:
        actor: whom the request's token was made for.
    """

    sandbox_id: str
    socket_path: Path
    target: bytes
    actor: str = ""
    passage = AGENT
    prefix = b""
    withheld = _NOTHING
    added = ()

    @property
    def destination(self) -> Destination:
        """Where it is."""
        return Destination(str(self.socket_path))


@dataclass(slots=True)
class ToPort:
    """Answered by whatever listens on a port of a sandbox.

    Attributes:
        socket_path: of the sandbox's agent, which knows the way.
        prefix: the path that is the address, if it is one.
        withheld: names of fields that hold a credential of this server.
        added: field lines that it gets in their place.
    """

    sandbox_id: str
    socket_path: Path
    port: int
    target: bytes
    prefix: bytes = b""
    withheld: frozenset[bytes] = _NOTHING
    added: tuple[bytes, ...] = ()

    @property
    def passage(self) -> Passage:
        """See `Onward`."""
        return PORT_BY_PATH if self.prefix else PORT_BY_HOST

    @property
    def destination(self) -> Destination:
        """Where it is."""
        return Destination(str(self.socket_path), self.port)


Route = ToControlPlane | ToAgent | ToPort | Refuse


def decide(
    head: RequestHead,
    settings: GatewaySettings,
    tokens: TokenVerifier,
    directory: AgentDirectory,
    *,
    secure: bool = False,
) -> Route:
    """The one place a request is routed.

    Args:
        secure: the client speaks TLS, to this server or to something in front of it.
    """
    if head.method in _REFUSED_METHODS:
        return refuse(
            "METHOD_NOT_ALLOWED",
            f"{head.method.decode()} is not served here.",
            Plane.CONTROL,
            remedy="Send GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.",
        )
    router = _Router(head, settings, tokens, directory, secure=secure)
    address = in_host(head.hostname, settings.domain)
    if address is not None:
        return router.by_host(address.port, address.sandbox_id)
    if looks_like_port(head.hostname, settings.domain):
        return refuse("SANDBOX_NOT_FOUND", "This host name is not the address of a port of a sandbox.", Plane.PREVIEW)
    if not _host_is_served(head.hostname, settings):
        return _foreign_host()
    if head.target == b"*":
        return ToControlPlane(head.target)
    if head.path.startswith(b"/sandboxes/"):
        return router.by_path()
    return router.by_token()


def _host_is_served(hostname: str, settings: GatewaySettings) -> bool:
    # Browsers always send Host, so a request without one is not a rebinding attack.
    allowed = settings.allowed_hosts
    return allowed is None or not hostname or hostname in allowed or _LOOPBACK.fullmatch(hostname) is not None


def _foreign_host() -> Refuse:
    return refuse(
        "FORBIDDEN",
        "The host name of this request is not one that the server serves.",
        Plane.CONTROL,
        remedy="Use http://127.0.0.1 or http://localhost, or start the server with --allow-host for this name, "
        "or with --domain for names of sandboxes.",
    )


class _Router:
    """One request that may be for a sandbox."""

    def __init__(
        self,
        head: RequestHead,
        settings: GatewaySettings,
        tokens: TokenVerifier,
        directory: AgentDirectory,
        *,
        secure: bool,
    ) -> None:
        self._secure = secure
        self._head = head
        self._settings = settings
        self._tokens = tokens
        self._directory = directory
        self._plane = Plane.AGENT

    def by_host(self, port: int, sandbox_id: str) -> Route:
        """`{port}-{id}.<domain>`."""
        target = without_vendor_path(self._head.target)
        if port == AGENT_PORT:
            return self._to_agent_of(sandbox_id, target)
        if self._settings.domain is None:
            return _foreign_host()
        return self._to_port(sandbox_id, port, target)

    def by_path(self) -> Route:
        """`/sandboxes/<id>/...`."""
        try:
            address = in_path(self._head.target)
        except ValueError as failure:
            remedy = "Write /sandboxes/{id}/ports/{port}/."
            return self.refuse("INVALID_REQUEST", str(failure), remedy=remedy)
        if address is None:
            return self.refuse("SANDBOX_NOT_FOUND", "Sandbox not found: the path holds no sandbox id.")
        if address.port is None or address.port == AGENT_PORT:
            return self._to_agent_of(address.sandbox_id, address.rest)
        if address.bare and self._head.method in (b"GET", b"HEAD"):
            # Relative links in a page would otherwise lose the port.
            return redirect((address.prefix + address.rest).decode("ascii"))
        return self._to_port(address.sandbox_id, address.port, address.rest, prefix=address.prefix)

    def by_token(self) -> Route:
        """No address: a valid agent token decides, except on the control plane's own paths."""
        path = self._head.path
        if _is_below(path, CONTROL_PREFIXES):
            return ToControlPlane(self._head.target)
        claimed = self._claimed()
        if isinstance(claimed, AgentClaims):
            return self._to_agent(claimed, self._head.target)
        # /health, /metrics and / exist on both planes; without a valid agent token they are the control plane's.
        return claimed if _is_below(path, AGENT_PREFIXES) else ToControlPlane(self._head.target)

    def refuse(self, code: str, message: str, *, remedy: str = "") -> Refuse:
        """A refusal of this request."""
        return refuse(code, message, self._plane, remedy=remedy, path=self._shown_path())

    def _to_port(self, sandbox_id: str, port: int, target: bytes, *, prefix: bytes = b"") -> Route:
        self._plane = Plane.PREVIEW
        visitor = Visitor(self._head, target, self._tokens)
        refusal = self._seen_off(visitor, sandbox_id, port, prefix)
        if refusal is not None:
            return refusal
        socket_path = self._directory.socket_of(sandbox_id)
        if socket_path is None:
            return self._not_running(sandbox_id)
        withheld = visitor.withheld | self._own_credentials()
        added = () if prefix else visitor.added  # no cookie passes at a path
        return ToPort(sandbox_id, socket_path, port, visitor.target, prefix, withheld, added)

    def _seen_off(self, visitor: Visitor, sandbox_id: str, port: int, prefix: bytes) -> Refuse | None:
        """What a visitor is told instead of being let through to the program: to go, or where to."""
        terms = self._directory.previews_of(sandbox_id)
        closed = self._settings.previews_need_token
        if terms is not None and terms.access is not None:
            closed = terms.access is PreviewAccess.TOKEN
        found = visitor.look(sandbox_id, port, terms) if closed or visitor.opens_link else None
        let_in = found if isinstance(found, LetIn) else None
        if visitor.opens_link and terms is not None and (let_in or not closed):
            return self._exchange(visitor, let_in, prefix)
        if let_in or not closed:
            return None
        refusal = self._authorised(sandbox_id)
        if not isinstance(refusal, Refuse):
            return None
        if refusal.code != "UNAUTHORIZED":
            return refusal
        if isinstance(found, CoveError):
            return refuse_error(found, self._plane, path=self._shown_path())
        return self.refuse("UNAUTHORIZED", "Not everybody may see this preview.", remedy=HOW_TO_GET_IN)

    def _exchange(self, visitor: Visitor, found: LetIn | None, prefix: bytes) -> Refuse:
        """To the same address without the token. At a host name the path must not begin like another host's address."""
        location = prefix + visitor.target if prefix else b"/" + visitor.target.lstrip(b"/\\")
        cookie = b""
        if found is not None and found.by_target:
            cookie = cookie_for(found, prefix=prefix, secure=self._secure)
        return exchange(location.decode("ascii"), cookie.decode("ascii"))

    def _to_agent_of(self, sandbox_id: str, target: bytes) -> Route:
        claimed = self._authorised(sandbox_id)
        return claimed if isinstance(claimed, Refuse) else self._to_agent(claimed, target)

    def _authorised(self, sandbox_id: str) -> AgentClaims | Refuse:
        """Who may speak to this sandbox, or why the request may not: that does not tell whether there is one."""
        claimed = self._claimed()
        if isinstance(claimed, AgentClaims) and claimed.sandbox_id != sandbox_id:
            remedy = "Get a token of this one: POST /v1/sandboxes/{id}/token/refresh."
            return self.refuse("FORBIDDEN", "The token is for another sandbox.", remedy=remedy)
        return claimed

    def _to_agent(self, claimed: AgentClaims, target: bytes) -> Route:
        sandbox_id = claimed.sandbox_id
        socket_path = self._directory.socket_of(sandbox_id)
        if socket_path is None:
            return self._not_running(sandbox_id)
        if self._head.method == b"POST" and target.partition(b"?")[0] == _ASYNC_PATH:
            # What has to outlive the sandbox is the control plane's. It verifies the token once more.
            return ToControlPlane(b"/sandboxes/" + sandbox_id.encode("ascii") + _ASYNC_PATH, Plane.AGENT)
        return ToAgent(sandbox_id, socket_path, target, claimed.actor)

    def _not_running(self, sandbox_id: str) -> Refuse:
        why = not_running(sandbox_id, self._directory.state_of(sandbox_id))
        return refuse_error(why, self._plane, path=self._shown_path())

    def _claimed(self) -> AgentClaims | Refuse:
        """What the request's token says."""
        bearer = _BEARER.fullmatch(self._head.first(b"authorization") or b"")
        if bearer is None:
            return self.refuse("UNAUTHORIZED", "This request needs the sandbox's token.")
        token = bearer[1].decode("ascii")
        if token.count(".") != 2:
            return self.refuse("UNAUTHORIZED", "The credential is not a sandbox token.")
        try:
            return self._tokens.claims(token)
        except CoveError as error:
            return refuse_error(error, self._plane, path=self._shown_path())

    def _own_credentials(self) -> frozenset[bytes]:
        """Fields with a key or token of this server: they are not for the program. Those of its own pass."""
        values = self._head.values
        if b"authorization" not in values and b"x-api-key" not in values:
            return _NOTHING
        own = {name for name in _CREDENTIAL_FIELDS if any(_API_KEY.fullmatch(value) for value in values.get(name, ()))}
        if b"authorization" in values:
            claimed = self._claimed()
            if isinstance(claimed, AgentClaims) or claimed.code != "UNAUTHORIZED":
                own.add(b"authorization")
        return frozenset(own)

    def _shown_path(self) -> str:
        return self._head.path[:1024].decode("ascii", "replace")


def _is_below(path: bytes, prefixes: tuple[bytes, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix + b"/") for prefix in prefixes)
