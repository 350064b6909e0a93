"""Which requests to agents are entries of the audit log: what runs something, opens something or changes something.

What only looks is not, nor is what goes to programs behind previews. Bodies are never looked at: an entry names the
route, and how many bytes were sent.
"""

from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from cove.core.principal import UNNAMED_ACTOR, Origin
from cove.server.gateway.heads import RequestHead
from cove.server.gateway.refusals import Refuse
from cove.server.gateway.routing import ToAgent


class Audit(Protocol):
    """Takes note at once, in a fixed time, and never fails."""

    def to_agent(self, sandbox_id: str, actor: str, action: str, route: str, size: int, origin: Origin) -> None:
        """A request went to the agent of a sandbox."""
        ...

    def refused(self, principal: None, route: str, subject: str, code: str, origin: Origin) -> None:
        """A request without a valid token was refused."""
        ...


class Audited(NamedTuple):
    """What a request is, in the words of the audit log."""

    action: str
    route: str


_ROUTES = {
    "code.run": (
        b"POST /execute",
        b"POST /execute/rich",
        b"POST /execute/ipython",
        b"POST /execute/events",
        b"POST /execute/background",
        b"GET /execute/stream",
        b"GET /stream",
        b"GET /stream/ipython",
    ),
    "command.run": (b"POST /commands/run", b"POST /commands/background", b"GET /commands/stream"),
    "terminal.opened": (b"GET /terminal",),
    "files.changed": (
        b"POST /files/write",
        b"POST /files/upload",
        b"POST /files/mkdir",
        b"DELETE /files/remove",
        b"PUT /files/archive",
    ),
    "environment.changed": (b"PUT /env", b"PATCH /env", b"DELETE /env"),
    "process.killed": (b"POST /execute/kill", b"DELETE /execute/kill"),
}
_AUDITED = {route: Audited(action, route.decode("ascii")) for action, routes in _ROUTES.items() for route in routes}
_BELOW = (
    (b"/execute/kill/", b"", Audited("process.killed", "POST /execute/kill/{id}")),
    (b"/processes/", b"/kill", Audited("process.killed", "POST /processes/{id}/kill")),
    (b"/terminal/sessions/", b"", Audited("terminal.ended", "DELETE /terminal/sessions/{name}")),
)
_OTHER = Audited("agent.changed", "other")
"""Whatever else is no mere question: nothing is missing for being spelt in another way."""

_READING = (b"GET", b"HEAD", b"OPTIONS")
_WITHOUT_TOKEN = frozenset({"UNAUTHORIZED", "TOKEN_EXPIRED", "FORBIDDEN"})


def audited(method: bytes, target: bytes) -> Audited | None:
    """What a request to an agent is; None for one that is not audited."""
    path = target.partition(b"?")[0]
    if b"%" in path:  # agents decode it (RFC 3986 §2.1)
        path = unquote_to_bytes(path)
    found = _AUDITED.get(b"%b %b" % (method, path))
    if found is not None or method in _READING:
        return found
    for beginning, end, what in _BELOW:
        if path.startswith(beginning) and path.endswith(end):
            return what
    return _OTHER


def note_passage(audit: Audit, head: RequestHead, route: ToAgent, request_id: bytes, address: bytes) -> None:
    """A request has been passed on to an agent."""
    what = audited(head.method, route.target)
    if what is not None:
        origin = Origin(request_id.decode("ascii"), address.decode("ascii"))
        actor = route.actor or UNNAMED_ACTOR
        audit.to_agent(route.sandbox_id, actor, what.action, what.route, head.framing.length or 0, origin)


def note_refusal(audit: Audit, head: RequestHead, refusal: Refuse, request_id: bytes, address: bytes) -> None:
    """A request was refused by the gateway itself."""
    if refusal.code in _WITHOUT_TOKEN:
        origin = Origin(request_id.decode("ascii"), address.decode("ascii"))
        path = head.path[:100].decode("ascii", "replace")
        audit.refused(None, f"{head.method[:10].decode('ascii', 'replace')} {path}", "", refusal.code, origin)
