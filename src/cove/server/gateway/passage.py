"""What of a message's head passes between clients and the kinds of upstreams.

Towards an agent no credential passes; from it nothing that would act on the server's origin in a browser. Programs
inside sandboxes get and send ordinary HTTP, with these exceptions:

- At an address of its own (`{port}-{id}.<domain>`) a program cannot set cookies that other addresses of the domain
  would get, nor empty their stores.
- Below the path `/sandboxes/...` all programs, and the API, are one origin for a browser. So no cookie passes there in
  either direction, nor anything else that a browser remembers for the origin; and pages are put into a sandbox of the
  browser's (Content Security Policy Level 3 §6.3.2), where their scripts have an origin that nobody shares.
"""

from dataclasses import dataclass
from typing import Final

from cove.server.gateway.heads import HOP_BY_HOP

_REFRAMED = frozenset({b"content-length", b"host", b"x-request-id"})
_FORWARDED = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
    }
)
_ENDING_HERE = HOP_BY_HOP | _REFRAMED | _FORWARDED
_CREDENTIALS = frozenset({b"authorization", b"cookie", b"referer", b"x-api-key", b"x-api-secret"})
_ANSWER_FRAMING = HOP_BY_HOP | {b"content-length"}
_REACHING_OTHER_HOSTS = frozenset({b"alt-svc", b"clear-site-data", b"public-key-pins"})
_REMEMBERED_FOR_ORIGIN = _REACHING_OTHER_HOSTS | {
    b"nel",
    b"report-to",
    b"reporting-endpoints",
    b"service-worker-allowed",
    b"set-cookie",
    b"set-cookie2",
    b"strict-transport-security",
    b"www-authenticate",
}
_SAID_BY_GATEWAY = frozenset(
    {
        b"content-security-policy",
        b"content-security-policy-report-only",
        b"x-content-type-options",
        b"x-request-id",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """The rules for one kind of upstream.

    Attributes:
        not_to, not_from: lower-case names of fields that do not pass to it, and from it.
        host: what it is told instead of the client's Host.
        forwarded: it is told who asked.
        numbered: answers carry the gateway's X-Request-ID; None means unless they carry one.
        policy: field lines that are added to each answer.
        any_upgrade: protocols other than WebSocket may be switched to.
        edited: lower-case names of fields whose values are changed in answers.
    """

    not_to: frozenset[bytes]
    not_from: frozenset[bytes]
    host: bytes | None = None
    forwarded: bool = True
    numbered: bool | None = None
    policy: bytes = b""
    any_upgrade: bool = False
    edited: frozenset[bytes] = frozenset()


# Clients of microsandbox may send their key in Proxy-Authorization, as to a proxy: it is for the control plane then.
CONTROL_PLANE: Final = Passage(not_to=_ENDING_HERE - {b"proxy-authorization"}, not_from=_ANSWER_FRAMING)

AGENT: Final = Passage(
    not_to=_ENDING_HERE | _CREDENTIALS,
    not_from=_ANSWER_FRAMING | _REMEMBERED_FOR_ORIGIN | _SAID_BY_GATEWAY,
    host=b"localhost",
    forwarded=False,
    numbered=True,
    policy=b"X-Content-Type-Options: nosniff\r\nContent-Security-Policy: sandbox\r\n",
)

PORT_BY_HOST: Final = Passage(
    not_to=_ENDING_HERE,
    not_from=_ANSWER_FRAMING | _REACHING_OTHER_HOSTS,
    numbered=False,
    any_upgrade=True,
    edited=frozenset({b"set-cookie"}),
)

PORT_BY_PATH: Final = Passage(
    not_to=_ENDING_HERE | {b"cookie"},
    not_from=_ANSWER_FRAMING | _REMEMBERED_FOR_ORIGIN,
    numbered=False,
    # Added to a policy of the program's own: browsers enforce both.
    policy=b"Content-Security-Policy: sandbox allow-scripts allow-forms allow-popups allow-downloads allow-modals\r\n",
    any_upgrade=True,
    edited=frozenset({b"location"}),
)


def without_domain(cookie: bytes) -> bytes:
    """A Set-Cookie value without Domain (RFC 6265 §5.2), so that the cookie is for this very host."""
    pair, *attributes = cookie.split(b";")
    kept = [part for part in attributes if part.partition(b"=")[0].strip(b" \t").lower() != b"domain"]
    return b";".join([pair, *kept])


def below(prefix: bytes, location: bytes, host: bytes) -> bytes:
    """A Location that names this server, moved below `prefix`; others, and those below it already, as they are."""
    for origin in (b"", b"http://" + host, b"https://" + host):
        path = location.removeprefix(origin)
        if location.startswith(origin) and path.startswith(b"/") and not path.startswith((b"//", b"/\\")):
            return location if (path + b"/").startswith(prefix + b"/") else origin + prefix + path
    return location
